//! Rows in memory that are assigned again and again: their norms and whole numbers are computed once.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::exact_gemm::{Best, ExactColumns, squared_norm};
use super::nearest::{CachedBlock, NearestFilter, NearestScratch, best_candidates, block_rows};
use crate::error::Result;
use crate::runtime::cpu::Level;
use crate::runtime::parallel::Par;

/// Norms that leave room in float32: the filter has bounds for such rows. Zero, NaN and infinity lie outside.
pub(crate) const NORM_RANGE: RangeInclusive<f64> = 1.0 / (1 << 25) as f64..=(1 << 25) as f64;

/// Rows of float32 that all have a direction.
pub(crate) struct QuantizedRows<'r> {
    rows: Cow<'r, [f32]>,
    dim: usize,
    level: Level,
    /// One over the norm of each row.
    inverse_norms: Vec<f64>,
    /// By block of rows, where whole numbers are used.
    cached: Vec<Option<CachedBlock>>,
}

impl<'r> QuantizedRows<'r> {
    /// `rows` in C order, or `None` if one of them has no direction, or a norm outside of [`NORM_RANGE`].
    pub(crate) fn new(rows: Cow<'r, [f32]>, dim: usize, level: Level, par: &Par<'_>) -> Result<Option<Self>> {
        let blocks: Vec<&[f32]> = rows.chunks(block_rows(dim) * dim).collect();
        let prepared = par.map(
            blocks.len(),
            || (),
            |(), i| {
                let norms = blocks[i].chunks_exact(dim).map(|row| squared_norm(level, row).sqrt());
                Ok((norms.collect::<Vec<f64>>(), CachedBlock::new(level, blocks[i], dim)))
            },
        )?;
        let (norms, cached): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        let norms = norms.concat();
        if !norms.iter().all(|norm| NORM_RANGE.contains(norm)) {
            return Ok(None);
        }
        let inverse_norms = norms.iter().map(|norm| 1.0 / norm).collect();
        Ok(Some(QuantizedRows { rows, dim, level, inverse_norms, cached }))
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.inverse_norms.len()
    }

    /// Numbers in a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// The level of the kernels that these rows are for.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// All rows.
    pub(crate) fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Row `i`.
    pub(crate) fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.dim..][..self.dim]
    }

    /// One over the norm of row `i`.
    pub(crate) fn inverse_norm(&self, i: usize) -> f64 {
        self.inverse_norms[i]
    }

    /// The nearest of the unit `vectors` to every row: of the largest dot product, ties to the lowest number.
    pub(crate) fn nearest(&self, vectors: &[f32], par: &Par<'_>) -> Result<Vec<u32>> {
        match NearestFilter::new(self.level, vectors, self.dim) {
            Some(filter) => self.nearest_by_filter(&filter, vectors, par),
            None => self.nearest_of_all(vectors, par),
        }
    }

    fn nearest_by_filter(&self, filter: &NearestFilter<'_>, vectors: &[f32], par: &Par<'_>) -> Result<Vec<u32>> {
        let (dim, size) = (self.dim, block_rows(self.dim));
        let mut labels = vec![0; self.len()];
        let scratch = || (NearestScratch::default(), Vec::new(), Vec::new());
        par.for_blocks(&mut labels, size, scratch, |(scratch, rivals, best), block, labels| {
            let rows = &self.rows[block * size * dim..][..labels.len() * dim];
            rivals.clear();
            for candidates in filter
                .candidates(rows, self.cached[block].as_ref(), &[], scratch)
                .chunk_by(|candidate, next| candidate.row == next.row)
            {
                match candidates {
                    [only] => labels[only.row as usize] = only.label,
                    several => rivals.extend_from_slice(several),
                }
            }
            best.clear();
            best.resize(labels.len(), None);
            best_candidates(self.level, rivals, rows, vectors, dim, best);
            for (label, best) in labels.iter_mut().zip(best.iter()) {
                *label = best.map_or(*label, |(best, _)| best.label);
            }
            Ok(())
        })?;
        Ok(labels)
    }

    fn nearest_of_all(&self, vectors: &[f32], par: &Par<'_>) -> Result<Vec<u32>> {
        let (dim, size) = (self.dim, block_rows(self.dim));
        let columns = ExactColumns::new(self.level, vectors, dim);
        let mut labels = vec![0; self.len()];
        let scratch = || (Vec::new(), Vec::new(), Vec::new());
        par.for_blocks(&mut labels, size, scratch, |(wide, tiles, best), block, labels| {
            let rows = &self.rows[block * size * dim..][..labels.len() * dim];
            wide.clear();
            wide.extend(rows.iter().map(|&v| f64::from(v)));
            columns.pack_rows(wide, tiles);
            columns.argmax(tiles, labels.len(), true, best);
            labels.iter_mut().zip(best.iter()).for_each(|(label, &Best { label: found, .. })| *label = found);
            Ok(())
        })?;
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_out_of_range_or_without_direction_are_refused() {
        for bad in [0.0, f32::NAN, f32::INFINITY, 1e-30, 1e30] {
            for level in Level::present() {
                let rows = Cow::Owned(vec![1.0, 2.0, bad, bad]);
                assert!(QuantizedRows::new(rows, 2, level, &Par::new(Some(1))).unwrap().is_none(), "{bad}");
            }
        }
    }
}
