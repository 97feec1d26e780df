//! Stage II: the nearest centroid of every row.
//!
//! `label(x) = argmax_k <x, mu_k>`, ties to the lowest k, and `similarity(x) = <x, mu_label> / |x|` (RS-Prune, Eq. 4,
//! rows normalised). Both are defined by the float64 dot product of [`crate::linalg::dot`], whose order of additions is fixed: every
//! kernel, block size and thread count gives the same bits.
//!
//! [`Centroids`] are packed once ([`Assigner`]) and the rows come block by block: [`crate::linalg::nearest`] leaves few
//! centroids of each row, which [`crate::linalg::exact_gemm`] scores by the definition.

mod centroids;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

pub use centroids::Centroids;

use crate::error::{Error, Result};
use crate::linalg::exact_gemm::{Best, ExactColumns};
use crate::linalg::nearest::{BLOCK_BYTES, NearestFilter, NearestScratch, best_candidates, block_rows};
use crate::linalg::norm::Norm;
use crate::rows::{Dtype, Reader, Rows};
use crate::runtime::cpu::{self, Level};
use crate::runtime::parallel::Par;

/// The label of a row without a direction.
pub const NO_LABEL: i32 = -1;

/// A thread reads about this much of a file at a time: a disk does its best long before, and it fits into a huge page or
/// two of each thread.
const STRETCH_BYTES: usize = 4 << 20;

/// Settings of an assignment.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Divide by the norm of the row. Without it the similarity is the dot product: Eq. 4 to the letter.
    pub normalize: bool,
    /// Rows in a block; `None` chooses by the cache. It changes no result.
    pub block_rows: Option<usize>,
    /// The level of the kernels; `None` is that of [`cpu::level`]. It changes no result.
    pub level: Option<Level>,
}

impl Default for Options {
    fn default() -> Self {
        Options { normalize: true, block_rows: None, level: None }
    }
}

/// The treatment of rows without a direction: NaN, infinite or all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// Leave them out: label -1, similarity NaN.
    Exclude,
    /// Fail, naming the first.
    Raise,
}

/// The nearest centroid of every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Assigned {
    /// Its number, or [`NO_LABEL`].
    pub labels: Vec<i32>,
    /// The similarity to it, or NaN.
    pub similarity: Vec<f32>,
}

/// Assigns every row to its nearest centroid.
///
/// # Errors
/// [`Error::Shape`] when rows and centroids differ in dimension, [`Error::InvalidRow`] with [`OnInvalid::Raise`], and
/// what reading files can raise.
pub fn assign(
    rows: &Rows<'_>,
    centroids: &Centroids,
    options: Options,
    on_invalid: OnInvalid,
    par: &Par<'_>,
) -> Result<Assigned> {
    Assigner::new(centroids, options)?.assign(rows, on_invalid, par)
}

/// Centroids that are packed once, when rows first need them, for any number of assignments.
pub struct Assigner<'c> {
    centroids: &'c Centroids,
    options: Options,
    level: Level,
    filter: OnceLock<Option<NearestFilter<'c>>>,
    columns: OnceLock<ExactColumns>,
}

impl<'c> Assigner<'c> {
    /// Assigns to `centroids`.
    ///
    /// # Errors
    /// As [`cpu::level`].
    pub fn new(centroids: &'c Centroids, options: Options) -> Result<Self> {
        let level = options.level.map_or_else(cpu::level, Ok)?;
        Ok(Assigner { centroids, options, level, filter: OnceLock::new(), columns: OnceLock::new() })
    }

    /// As [`assign`].
    ///
    /// # Errors
    /// As [`assign`].
    pub fn assign(&self, rows: &Rows<'_>, on_invalid: OnInvalid, par: &Par<'_>) -> Result<Assigned> {
        let (dim, of_centroids) = (rows.dim(), self.centroids.dim());
        if dim != of_centroids {
            return Err(Error::Shape(format!(
                "the embeddings have {dim} dimensions, but the centroids have {of_centroids}: embed both with the same \
                 encoder, or fit centroids to embeddings of this one",
            )));
        }
        // Float64 numbers have inexact products, of which the filter's bounds know nothing.
        let exact_products = !rows.holds(Dtype::F64);
        let vectors = self.centroids.vectors();
        let filter = || self.filter.get_or_init(|| NearestFilter::new(self.level, vectors, dim)).as_ref();
        let nearest = match exact_products.then(filter).flatten() {
            Some(filter) => self.by_filter(rows, filter, par),
            None => self.by_all(rows, exact_products, par),
        }?;
        let (labels, similarity): (Vec<i32>, Vec<f32>) = nearest.into_iter().unzip();
        if let (OnInvalid::Raise, Some(row)) = (on_invalid, labels.iter().position(|&label| label == NO_LABEL)) {
            return Err(invalid_row(rows, row)?);
        }
        Ok(Assigned { labels, similarity })
    }

    /// The label and the similarity of a row of this norm, which is `None` for rows without a direction.
    fn finish(&self, best: Best, norm: Option<Norm>) -> (i32, f32) {
        match norm {
            // The one rounding to float32.
            Some(norm) if self.options.normalize => (best.label as i32, (best.dot / norm.value) as f32),
            Some(norm) => (best.label as i32, norm.unscale(best.dot) as f32),
            None => (NO_LABEL, f32::NAN),
        }
    }

    /// All centroids, packed for float64.
    fn columns(&self) -> &ExactColumns {
        self.columns.get_or_init(|| ExactColumns::new(self.level, self.centroids.vectors(), self.centroids.dim()))
    }

    /// Assigns rows by scoring in float64 only what the filter leaves.
    fn by_filter(&self, rows: &Rows<'_>, filter: &NearestFilter<'_>, par: &Par<'_>) -> Result<Vec<(i32, f32)>> {
        let (dim, vectors) = (rows.dim(), self.centroids.vectors());
        let size = self.options.block_rows.unwrap_or_else(|| block_rows(dim)).max(1);
        let scratch = || (NearestScratch::default(), Vec::new());
        for_rows(rows, size, par, scratch, |(scratch, best), reader, range, block| {
            let next = range.end..(range.end + size).min(rows.len());
            let (values, upcoming) = reader.read_single(range, next)?;
            best.clear();
            best.resize(block.len(), None);
            let candidates = filter.candidates(values, None, upcoming, scratch);
            best_candidates(self.level, candidates, values, vectors, dim, best);
            for ((out, best), row) in block.iter_mut().zip(best.iter()).zip(values.chunks_exact(dim)) {
                *out = match *best {
                    Some((best, norm)) => self.finish(best, Some(norm)),
                    None => {
                        // The filter has no bounds for the row, which is rare.
                        let (best, norm) = self.by_all_of_one(row);
                        self.finish(best, norm)
                    }
                };
            }
            Ok(())
        })
    }

    /// Assigns rows by scoring all centroids in float64.
    fn by_all(&self, rows: &Rows<'_>, exact_products: bool, par: &Par<'_>) -> Result<Vec<(i32, f32)>> {
        let (dim, columns) = (rows.dim(), self.columns());
        let by_cache = || (BLOCK_BYTES / (dim * size_of::<f64>())).clamp(4, 4096).next_multiple_of(4);
        let size = self.options.block_rows.unwrap_or_else(by_cache).max(1);
        let scratch = || (Vec::new(), Vec::new(), Vec::new());
        for_rows(rows, size, par, scratch, |(norms, tiles, best), reader, range, block| {
            let values = reader.read(range)?;
            norms.clear();
            norms.extend(values.chunks_exact_mut(dim).map(|row| Norm::of(row).ok()));
            columns.pack_rows(values, tiles);
            columns.argmax(tiles, block.len(), exact_products, best);
            for ((out, &best), &norm) in block.iter_mut().zip(best.iter()).zip(norms.iter()) {
                *out = self.finish(best, norm);
            }
            Ok(())
        })
    }

    /// The best of all centroids for one row of float32.
    fn by_all_of_one(&self, row: &[f32]) -> (Best, Option<Norm>) {
        let mut wide: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        let norm = Norm::of(&mut wide).ok();
        let (mut tiles, mut best) = (Vec::new(), Vec::new());
        self.columns().pack_rows(&wide, &mut tiles);
        self.columns().argmax(&tiles, 1, true, &mut best);
        (best[0], norm)
    }
}

/// Fills an output of one element a row by `f(scratch, reader, range, out)`, for every `range` of `size` rows. Rows from files are read some
/// [`STRETCH_BYTES`] ahead.
fn for_rows<'r, S, T: Clone + Default + Send>(
    rows: &'r Rows<'r>,
    size: usize,
    par: &Par<'_>,
    scratch: impl Fn() -> S + Sync + Send,
    f: impl Fn(&mut S, &mut Reader<'r>, Range<usize>, &mut [T]) -> Result<()> + Sync + Send,
) -> Result<Vec<T>> {
    let mut out = vec![T::default(); rows.len()];
    let scratch = || (scratch(), rows.reader());
    let Some(row_bytes) = rows.file_row_bytes() else {
        par.for_blocks(&mut out, size, scratch, |(scratch, reader), i, block| {
            f(scratch, reader, i * size..i * size + block.len(), block)
        })?;
        return Ok(out);
    };
    // As long as all threads get several.
    let stretch = (STRETCH_BYTES / row_bytes).min(rows.len() / (8 * par.threads())) / size;
    let stretch = stretch.max(1) * size;
    par.for_prefetched_blocks(
        &mut out,
        stretch,
        scratch,
        |(_, reader), i, length| reader.fetch(i * stretch..i * stretch + length),
        |(scratch, reader), i, stretch_out| {
            for (j, block) in stretch_out.chunks_mut(size).enumerate() {
                let start = i * stretch + j * size;
                f(scratch, reader, start..start + block.len(), block)?;
            }
            Ok(())
        },
    )?;
    Ok(out)
}

/// The error that names `row`, which has no direction.
pub(crate) fn invalid_row(rows: &Rows<'_>, row: usize) -> Result<Error> {
    let mut reader = rows.reader();
    let why = Norm::of(reader.read(row..row + 1)?).err().unwrap_or("has no direction");
    Ok(Error::InvalidRow { row, why })
}
