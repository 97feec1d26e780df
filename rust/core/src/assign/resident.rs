//! Rows in memory that are assigned again and again: their norms and digits are computed once.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::filter::{Filter, Kept, Scratch};
use super::{Centroids, Kernel, Options, Prepared, rows_of_block, score};
use crate::error::Result;
use crate::rows::Rows;
use crate::runtime::cpu::Level;
use crate::runtime::parallel::Par;

/// Norms that leave room in float32: the filter can judge such rows. Zero, NaN and infinity lie outside.
pub(crate) const ROOM: RangeInclusive<f64> = 1.0 / (1 << 25) as f64..=(1 << 25) as f64;

/// Rows of float32 that all have a direction.
pub(crate) struct Resident<'r> {
    rows: Cow<'r, [f32]>,
    dim: usize,
    level: Level,
    kernel: Kernel,
    /// One over the norm of each row.
    inverse_norms: Vec<f64>,
    /// Of each block of rows, where digits are used.
    kept: Vec<Option<Kept>>,
}

impl<'r> Resident<'r> {
    /// `rows` in C order, or `None` if one of them has no direction, or a norm that leaves too little room in float32.
    pub(crate) fn new(rows: Cow<'r, [f32]>, dim: usize, level: Level, par: &Par<'_>) -> Result<Option<Self>> {
        let kernel = Kernel::new(level, true);
        let blocks: Vec<&[f32]> = rows.chunks(rows_of_block(dim) * dim).collect();
        let prepared = par.map(
            blocks.len(),
            || (),
            |(), i| {
                let norms = blocks[i].chunks_exact(dim).map(|row| kernel.square(row).sqrt());
                Ok((norms.collect::<Vec<f64>>(), Kept::new(level, blocks[i], dim)))
            },
        )?;
        let (norms, kept): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        let norms = norms.concat();
        if !norms.iter().all(|norm| ROOM.contains(norm)) {
            return Ok(None);
        }
        let inverse_norms = norms.iter().map(|norm| 1.0 / norm).collect();
        Ok(Some(Resident { rows, dim, level, kernel, inverse_norms, kept }))
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.inverse_norms.len()
    }

    /// Numbers in a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// What scores rows exactly.
    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel
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

    /// The label of every row, as [`super::assign`] finds it.
    pub(crate) fn labels(&self, centroids: &Centroids, par: &Par<'_>) -> Result<Vec<u32>> {
        let dim = self.dim;
        let Some(filter) = Filter::new(self.level, centroids.vectors(), dim) else {
            let options = Options { level: Some(self.level), ..Options::default() };
            let rows = Rows::from_slice(&self.rows, dim)?;
            return Prepared::new(centroids, options)?.nearest(&rows, par, |best, _| best.label);
        };
        let size = rows_of_block(dim);
        let mut labels = vec![0; self.len()];
        let scratch = || (Scratch::default(), Vec::new(), Vec::new());
        par.for_blocks(&mut labels, size, scratch, |(scratch, rivals, best), block, labels| {
            let rows = &self.rows[block * size * dim..][..labels.len() * dim];
            rivals.clear();
            for survivors in filter
                .survivors(rows, self.kept[block].as_ref(), &[], scratch)
                .chunk_by(|survivor, next| survivor.row == next.row)
            {
                match survivors {
                    [only] => labels[only.row as usize] = only.label,
                    several => rivals.extend_from_slice(several),
                }
            }
            best.clear();
            best.resize(labels.len(), None);
            score(rivals, rows, centroids, self.kernel, best);
            for (label, best) in labels.iter_mut().zip(best.iter()) {
                *label = best.map_or(*label, |(best, _)| best.label);
            }
            Ok(())
        })?;
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::assign::{OnInvalid, assign};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]
        #[test]
        fn labels_are_those_of_an_assignment_at_every_level(
            n in 1usize..200, dim in 1usize..90, k in 1usize..40, copies in 1usize..4, seed: u64,
        ) {
            let number = |seed: u64| move |i: usize| (crate::runtime::rng::uniform(seed, i as u64) - 0.5) as f32;
            let rows: Vec<f32> = (0..n * dim).map(number(seed)).collect();
            // Copies are ties, which go to the lowest label.
            let vectors: Vec<f32> = (0..k * dim).map(number(!seed)).collect::<Vec<f32>>().repeat(copies);
            let par = Par::new(Some(2));
            let (rows, centroids) = (Rows::from_slice(&rows, dim).unwrap(), Rows::from_slice(&vectors, dim).unwrap());
            let Ok(centroids) = Centroids::new(&centroids) else { return Ok(()) };
            let scalar = Options { level: Some(Level::Scalar), ..Options::default() };
            let expected = assign(&rows, &centroids, scalar, OnInvalid::Exclude, &par).unwrap().labels;
            for level in Level::present() {
                let resident = Resident::new(Cow::Borrowed(rows.singles(0..n).unwrap()), dim, level, &par).unwrap();
                if let Some(resident) = resident {
                    let labels = resident.labels(&centroids, &par).unwrap();
                    prop_assert!(labels.iter().zip(&expected).all(|(&label, &want)| label as i32 == want), "{:?}", level);
                }
            }
        }
    }

    #[test]
    fn rows_without_room_or_direction_are_refused() {
        for bad in [0.0, f32::NAN, f32::INFINITY, 1e-30, 1e30] {
            for level in Level::present() {
                let rows = Cow::Owned(vec![1.0, 2.0, bad, bad]);
                assert!(Resident::new(rows, 2, level, &Par::new(Some(1))).unwrap().is_none(), "{bad}");
            }
        }
    }
}
