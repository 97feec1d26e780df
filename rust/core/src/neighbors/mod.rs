//! Rows and their most similar rows: the products behind near-duplicates, k-center and facility location.
//!
//! `similarity(x, y) = <x, y> / (|x| |y|)`: the float64 dot product of [`crate::linalg::dot`], divided by the product of
//! the norms and rounded once to float32. It is symmetric to the bit. Rows without a direction (NaN, infinite, all zero)
//! are similar to nothing and are never found. Rows of float64 are normalised, and count as the nearest float32.
//!
//! | module | what it finds |
//! | --- | --- |
//! | [`mod@knn`] | the k most similar rows |
//! | [`dedup`] | within groups: the most similar earlier row, pairs above a threshold |
//! | [`union_find`] | connected components of such pairs |
//! | [`kcenter`] | the farthest row, again and again |
//! | [`facility_location`] | the rows that cover the others best |
//! | [`message_passing`] | message passing on a graph of neighbors |
//!
//! Products of all rows with all are never held: a [`BasePanel`] of the base is searched at a time, by blocks of rows. The
//! panel excludes what the bounds of [`crate::linalg`] can, and the rest is scored by the definition.

mod base_panel;
pub mod dedup;
pub mod facility_location;
pub mod kcenter;
pub mod knn;
pub mod message_passing;
#[cfg(test)]
mod tests;
pub mod union_find;

use base_panel::{BasePanel, Scratch, Visitor};
pub use knn::{Neighbor, knn};
pub use union_find::UnionFind;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::linalg::dot::dot;
use crate::linalg::exact_gemm::{PAIRS, dot4};
use crate::linalg::norm::Norm;
use crate::rows::{Dtype, Reader, Rows};
use crate::runtime::cpu::{self, Level};

/// Search settings. None of them changes a result.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Rows in a block; `None` chooses by the cache.
    pub block_rows: Option<usize>,
    /// Vectors that are held at a time; `None` chooses by memory.
    pub panel_rows: Option<usize>,
    /// The level of the kernels; `None` is that of [`cpu::level`].
    pub level: Option<Level>,
}

/// The float32 numbers of a block of rows: they, their digits and scores fit into the second-level cache.
const BLOCK_BYTES: usize = 96 << 10;

/// The float32 numbers of a panel.
const PANEL_BYTES: usize = 64 << 20;

impl Options {
    fn level(&self) -> Result<Level> {
        self.level.map_or_else(cpu::level, Ok)
    }

    fn block_rows(&self, dim: usize) -> usize {
        let by_cache = || (BLOCK_BYTES / (dim * size_of::<f32>())).clamp(12, 384).next_multiple_of(6);
        self.block_rows.unwrap_or_else(by_cache).max(1)
    }

    fn panel_rows(&self, dim: usize) -> usize {
        let by_memory = || (PANEL_BYTES / (dim * size_of::<f32>())).max(1024);
        self.panel_rows.unwrap_or_else(by_memory).max(1)
    }
}

/// The similarity of two rows, as every kernel here defines it; NaN unless both have a direction.
pub fn similarity(x: &[f64], y: &[f64]) -> f32 {
    cosine(dot(x, y), dot(x, x).sqrt(), dot(y, y).sqrt())
}

/// From the dot product and the norms: the one rounding to float32.
fn cosine(dot: f64, x: f64, y: f64) -> f32 {
    // Zero norms give NaN, infinite ones must not give zero. Adding +0.0 leaves no -0.0.
    let norms = x * y;
    if norms.is_finite() { (dot / norms) as f32 + 0.0 } else { f32::NAN }
}

/// The norms of rows in C order; zero or not finite for rows without a direction.
fn norms(rows: &[f32], dim: usize, level: Level) -> Vec<f64> {
    let all: Vec<&[f32]> = rows.chunks_exact(dim).collect();
    let of_four = |four: &[&[f32]]| {
        let row = |i: usize| (four[i.min(four.len() - 1)], four[i.min(four.len() - 1)]);
        let squares = dot4(level, std::array::from_fn(row));
        squares.map(|(_, square)| Norm::from_square(square).value).into_iter().take(four.len()).collect::<Vec<f64>>()
    };
    all.chunks(PAIRS).flat_map(of_four).collect()
}

/// Reads rows as float32: exact but for float64, whose rows are normalised first, so that none is too long or short.
struct Source<'r> {
    reader: Reader<'r>,
    normalizes: bool,
    units: Vec<f32>,
}

impl<'r> Source<'r> {
    fn new(rows: &'r Rows<'r>) -> Self {
        Source { reader: rows.reader(), normalizes: rows.holds(Dtype::F64), units: Vec::new() }
    }

    /// The rows of `range`, C order.
    fn read(&mut self, range: Range<usize>) -> Result<&[f32]> {
        if !self.normalizes {
            return Ok(self.reader.read_single(range, 0..0)?.0);
        }
        let count = range.len();
        let values = self.reader.read(range)?;
        self.units.clear();
        for row in values.chunks_exact_mut(values.len() / count.max(1)) {
            let norm = Norm::of(row).map_or(f64::NAN, |norm| norm.value);
            self.units.extend(row.iter().map(|v| (v / norm) as f32));
        }
        Ok(&self.units)
    }

    /// The rows of these numbers, one after the other, into `out`.
    fn gather(&mut self, numbers: &[u32], out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        // Neighbors are read together.
        for run in numbers.chunk_by(|a, b| a + 1 == *b) {
            let first = run[0] as usize;
            out.extend_from_slice(self.read(first..first + run.len())?);
        }
        Ok(())
    }
}

/// Rows are numbered in 32 bits here.
fn check_count(rows: &Rows<'_>) -> Result<()> {
    match u32::try_from(rows.len()) {
        Ok(n) if n < u32::MAX => Ok(()),
        _ => Err(Error::Argument(format!("{} rows; at most {} can be searched", rows.len(), u32::MAX - 1))),
    }
}

fn check_dim(queries: &Rows<'_>, base: &Rows<'_>) -> Result<()> {
    if queries.dim() != base.dim() {
        return Err(Error::Shape(format!(
            "the queries have {} dimensions, but the rows that they are looked for among have {}: embed both with the \
             same encoder",
            queries.dim(),
            base.dim()
        )));
    }
    Ok(())
}
