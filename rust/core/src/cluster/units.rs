//! The reference rows as unit vectors in memory.

use std::collections::HashSet;

use crate::assign::{Direction, OnInvalid, invalid_row};
use crate::error::{Error, Result};
use crate::par::Par;
use crate::rows::Rows;

/// Rows that a thread loads at a time.
const LOAD: usize = 256;

/// (M, D) unit vectors of float32.
pub(super) struct Units {
    pub(super) vectors: Vec<f32>,
    pub(super) dim: usize,
    /// The rows that have no direction and are not among the vectors, ascending.
    pub(super) invalid: Vec<usize>,
}

impl Units {
    /// Normalises every valid row in float64.
    pub(super) fn load(rows: &Rows<'_>, on_invalid: OnInvalid, par: &Par<'_>) -> Result<Self> {
        let (n, dim) = (rows.len(), rows.dim());
        let mut vectors = vec![0f32; n * dim];
        par.for_blocks(
            &mut vectors,
            LOAD * dim,
            || rows.reader(),
            |reader, i, block| {
                let values = reader.read(i * LOAD..i * LOAD + block.len() / dim)?;
                for (unit, row) in block.chunks_exact_mut(dim).zip(values.chunks_exact_mut(dim)) {
                    // An invalid row stays all zero, which no unit vector is.
                    if let Ok(direction) = Direction::of(row) {
                        unit.iter_mut().zip(row).for_each(|(u, v)| *u = (*v / direction.norm) as f32);
                    }
                }
                Ok(())
            },
        )?;
        let is_invalid = |row: &usize| vectors[row * dim..(row + 1) * dim].iter().all(|&v| v == 0.0);
        let invalid: Vec<usize> = (0..n).filter(is_invalid).collect();
        if let (OnInvalid::Raise, Some(&row)) = (on_invalid, invalid.first()) {
            return Err(invalid_row(rows, row)?);
        }
        if invalid.len() == n {
            return Err(Error::Empty(format!("none of the {n} rows has a direction: all are NaN, infinite or zero")));
        }
        // The rows between two invalid ones move down together.
        let mut end = invalid.first().map_or(n, |&row| row);
        for (i, &row) in invalid.iter().enumerate() {
            let next = invalid.get(i + 1).map_or(n, |&row| row);
            vectors.copy_within((row + 1) * dim..next * dim, end * dim);
            end += next - row - 1;
        }
        vectors.truncate(end * dim);
        Ok(Units { vectors, dim, invalid })
    }

    pub(super) fn len(&self) -> usize {
        self.vectors.len() / self.dim
    }

    pub(super) fn vector(&self, i: usize) -> &[f32] {
        &self.vectors[i * self.dim..(i + 1) * self.dim]
    }

    /// The row that vector `i` was.
    pub(super) fn row(&self, i: usize) -> usize {
        self.invalid.iter().fold(i, |row, &invalid| row + usize::from(invalid <= row))
    }

    /// How many distinct vectors there are; counting stops at `enough`.
    pub(super) fn distinct(&self, enough: usize) -> usize {
        let mut seen = HashSet::new();
        for vector in self.vectors.chunks_exact(self.dim) {
            // Adding +0.0 makes -0.0 equal to it.
            seen.insert(vector.iter().map(|v| (v + 0.0).to_bits()).collect::<Vec<u32>>());
            if seen.len() == enough {
                break;
            }
        }
        seen.len()
    }
}
