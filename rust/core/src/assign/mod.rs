//! Stage II: the nearest centroid of every row.
//!
//! `label(x) = argmax_k <x, mu_k>`, ties to the lowest k, and `similarity(x) = <x, mu_label> / |x|` (RS-Prune, Eq. 4,
//! rows normalised). Both are defined by the float64 dot product of [`lanes`], whose order of additions is fixed: every
//! kernel, block size and thread count gives the same bits.
//!
//! [`Centroids`] are packed once ([`Prepared`]), the rows block by block; [`kernel`] finds the best centroid of each packed row.

mod centroids;
mod filter;
mod kernel;
pub mod lanes;
mod resident;
mod scale;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

pub use centroids::Centroids;
pub(crate) use filter::{Ask, Measure, PANEL_VECTORS, Screen, Screening};
use filter::{Filter, Survivor};
pub use kernel::{Best, Kernel, PAIRS, Packed};

use crate::error::{Error, Result};
use crate::rows::{Dtype, Reader, Rows};
use crate::runtime::cpu::{self, Level};
use crate::runtime::parallel::Par;
pub(crate) use resident::{ROOM, Resident};
pub(crate) use scale::Direction;

/// The label of a row without a direction.
pub const NO_LABEL: i32 = -1;

/// A block of rows as float64 fills about this many bytes: it must stay in the second-level cache (1 MB a core, or 512
/// KB on older machines) together with a tile of centroids.
const BLOCK_BYTES: usize = 256 << 10;

/// A thread reads about this much of a file at a time: a disk does its best long before, and it fits into a huge page or
/// two of each thread.
const STRETCH_BYTES: usize = 4 << 20;

/// Rows in a block of float32.
fn rows_of_block(dim: usize) -> usize {
    (BLOCK_BYTES / (dim * size_of::<f32>())).clamp(12, 1536).next_multiple_of(6)
}

/// How to assign.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Divide by the norm of the row. Without it the similarity is the dot product: Eq. 4 to the letter.
    pub normalize: bool,
    /// Rows in a block; `None` chooses by the cache. Never shows in the result.
    pub block_rows: Option<usize>,
    /// Which compilation of the kernels runs; `None` is that of [`cpu::level`]. Never shows in the result.
    pub level: Option<Level>,
}

impl Default for Options {
    fn default() -> Self {
        Options { normalize: true, block_rows: None, level: None }
    }
}

/// What to do about rows without a direction: NaN, infinite or all zero.
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
    Prepared::new(centroids, options)?.assign(rows, on_invalid, par)
}

/// Centroids that are packed once, when rows first need them, for any number of assignments.
pub struct Prepared<'c> {
    centroids: &'c Centroids,
    options: Options,
    level: Level,
    filter: OnceLock<Option<Filter<'c>>>,
    all: OnceLock<Packed>,
}

impl<'c> Prepared<'c> {
    /// Of `centroids`.
    ///
    /// # Errors
    /// As [`cpu::level`].
    pub fn new(centroids: &'c Centroids, options: Options) -> Result<Self> {
        let level = options.level.map_or_else(cpu::level, Ok)?;
        Ok(Prepared { centroids, options, level, filter: OnceLock::new(), all: OnceLock::new() })
    }

    /// As [`assign`].
    ///
    /// # Errors
    /// As [`assign`].
    pub fn assign(&self, rows: &Rows<'_>, on_invalid: OnInvalid, par: &Par<'_>) -> Result<Assigned> {
        let normalize = self.options.normalize;
        let nearest = self.nearest(rows, par, |best, direction| match direction {
            // The one rounding to float32.
            Some(d) if normalize => (best.label as i32, (best.dot / d.norm) as f32),
            Some(d) => (best.label as i32, d.restore(best.dot) as f32),
            None => (NO_LABEL, f32::NAN),
        })?;
        let (labels, similarity): (Vec<i32>, Vec<f32>) = nearest.into_iter().unzip();
        if let (OnInvalid::Raise, Some(row)) = (on_invalid, labels.iter().position(|&label| label == NO_LABEL)) {
            return Err(invalid_row(rows, row)?);
        }
        Ok(Assigned { labels, similarity })
    }

    /// `finish(best centroid, direction)` of every row; the direction is `None` for rows that have none.
    fn nearest<T: Clone + Default + Send>(
        &self,
        rows: &Rows<'_>,
        par: &Par<'_>,
        finish: impl Fn(Best, Option<Direction>) -> T + Sync + Send,
    ) -> Result<Vec<T>> {
        let (dim, of_centroids) = (rows.dim(), self.centroids.dim());
        if dim != of_centroids {
            return Err(Error::Shape(format!(
                "the embeddings have {dim} dimensions, but the centroids have {of_centroids}: embed both with the same \
                 encoder, or fit centroids to embeddings of this one",
            )));
        }
        // Float64 numbers have inexact products, which a fused multiply-add would not round.
        let exact_products = !rows.holds(Dtype::F64);
        let kernel = Kernel::new(self.level, exact_products);
        let filter = || self.filter.get_or_init(|| Filter::new(self.level, self.centroids.vectors(), dim)).as_ref();
        match exact_products.then(filter).flatten() {
            Some(filter) => self.by_filter(rows, kernel, filter, par, finish),
            None => self.by_all(rows, kernel, par, finish),
        }
    }

    /// All centroids, packed for float64.
    fn all(&self, kernel: Kernel) -> &Packed {
        self.all.get_or_init(|| kernel.pack_centroids(self.centroids.vectors(), self.centroids.dim()))
    }

    /// As [`Prepared::nearest`], scoring in float64 only what the filter leaves.
    fn by_filter<T: Clone + Default + Send>(
        &self,
        rows: &Rows<'_>,
        kernel: Kernel,
        filter: &Filter<'_>,
        par: &Par<'_>,
        finish: impl Fn(Best, Option<Direction>) -> T + Sync + Send,
    ) -> Result<Vec<T>> {
        let dim = rows.dim();
        let size = self.options.block_rows.unwrap_or_else(|| rows_of_block(dim)).max(1);
        let scratch = || (filter::Scratch::default(), Vec::new());
        for_rows(rows, size, par, scratch, |(scratch, best), reader, range, block| {
            let next = range.end..(range.end + size).min(rows.len());
            let (values, upcoming) = reader.read_single(range, next)?;
            best.clear();
            best.resize(block.len(), None);
            score(filter.survivors(values, None, upcoming, scratch), values, self.centroids, kernel, best);
            for ((out, best), row) in block.iter_mut().zip(best.iter()).zip(values.chunks_exact(dim)) {
                *out = match *best {
                    Some((best, direction)) => finish(best, Some(direction)),
                    None => {
                        // The filter cannot judge the row, which is rare.
                        let (best, direction) = by_all_of_one(row, kernel, self.all(kernel));
                        finish(best, direction)
                    }
                };
            }
            Ok(())
        })
    }

    /// As [`Prepared::nearest`], scoring all centroids in float64.
    fn by_all<T: Clone + Default + Send>(
        &self,
        rows: &Rows<'_>,
        kernel: Kernel,
        par: &Par<'_>,
        finish: impl Fn(Best, Option<Direction>) -> T + Sync + Send,
    ) -> Result<Vec<T>> {
        let (dim, packed) = (rows.dim(), self.all(kernel));
        let by_cache = || (BLOCK_BYTES / (dim * size_of::<f64>())).clamp(4, 4096).next_multiple_of(4);
        let size = self.options.block_rows.unwrap_or_else(by_cache).max(1);
        let scratch = || (Vec::new(), Vec::new(), Vec::new());
        for_rows(rows, size, par, scratch, |(directions, tiles, best), reader, range, block| {
            let values = reader.read(range)?;
            directions.clear();
            directions.extend(values.chunks_exact_mut(dim).map(|row| Direction::of(row).ok()));
            kernel.pack_rows(values, dim, tiles);
            kernel.nearest(tiles, block.len(), packed, best);
            for ((out, &best), &direction) in block.iter_mut().zip(best.iter()).zip(directions.iter()) {
                *out = finish(best, direction);
            }
            Ok(())
        })
    }
}

/// The best of the `survivors` of each of `rows` into `best`.
fn score(
    survivors: &[Survivor],
    rows: &[f32],
    centroids: &Centroids,
    kernel: Kernel,
    best: &mut [Option<(Best, Direction)>],
) {
    let dim = centroids.dim();
    for survivors in survivors.chunks(PAIRS) {
        let pair = |i: usize| {
            let Survivor { row, label } = survivors[i.min(survivors.len() - 1)];
            (&rows[row as usize * dim..][..dim], &centroids.vectors()[label as usize * dim..][..dim])
        };
        for (survivor, (dot, square)) in survivors.iter().zip(kernel.pairs(std::array::from_fn(pair))) {
            let best = &mut best[survivor.row as usize];
            if best.is_none_or(|(best, _)| dot > best.dot) {
                *best = Some((Best { label: survivor.label, dot }, Direction::of_square(square)));
            }
        }
    }
}

/// The best of all centroids for one row.
fn by_all_of_one(row: &[f32], kernel: Kernel, centroids: &Packed) -> (Best, Option<Direction>) {
    let mut wide: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
    let direction = Direction::of(&mut wide).ok();
    let (mut tiles, mut best) = (Vec::new(), Vec::new());
    kernel.pack_rows(&wide, row.len(), &mut tiles);
    kernel.nearest(&tiles, 1, centroids, &mut best);
    (best[0], direction)
}

/// What `f(scratch, reader, range, out)` makes of every `range` of `size` rows. Rows from files are read some
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
    par.for_fetched_blocks(
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
    let why = Direction::of(reader.read(row..row + 1)?).err().unwrap_or("has no direction");
    Ok(Error::InvalidRow { row, why })
}
