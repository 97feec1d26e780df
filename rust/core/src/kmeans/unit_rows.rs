//! The reference rows in memory.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::assign::{OnInvalid, invalid_row};
use crate::error::{Error, Result};
use crate::linalg::norm::Norm;
use crate::linalg::quantized_rows::{NORM_RANGE, QuantizedRows};
use crate::rows::Rows;
use crate::runtime::cpu;
use crate::runtime::parallel::Par;

/// Rows that a thread loads at a time.
const LOAD: usize = 256;

/// The rows that have a direction, which is all that is used of them.
pub(super) struct UnitRows<'r> {
    pub(super) rows: QuantizedRows<'r>,
    /// The rows that have none and are not among these, ascending.
    pub(super) invalid: Vec<usize>,
}

impl<'r> UnitRows<'r> {
    /// Rows that lie in memory as float32 stay there, unless some have no direction; others are copied.
    pub(super) fn load(rows: &'r Rows<'_>, on_invalid: OnInvalid, par: &Par<'_>) -> Result<Self> {
        let (n, dim, level) = (rows.len(), rows.dim(), cpu::level()?);
        if let Some(singles) = rows.singles(0..n)
            && let Some(rows) = QuantizedRows::new(Cow::Borrowed(singles), dim, level, par)?
        {
            return Ok(UnitRows { rows, invalid: Vec::new() });
        }
        let (singles, invalid) = copy(rows, par)?;
        if let (OnInvalid::Raise, Some(&row)) = (on_invalid, invalid.first()) {
            return Err(invalid_row(rows, row)?);
        }
        match QuantizedRows::new(Cow::Owned(singles), dim, level, par)? {
            Some(rows) if invalid.len() < n => Ok(UnitRows { rows, invalid }),
            _ => Err(Error::Empty(format!("none of the {n} rows has a direction: all are NaN, infinite or zero"))),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The direction of vector `i`, of unit length.
    pub(super) fn unit(&self, i: usize) -> impl Iterator<Item = f32> {
        let inverse_norm = self.rows.inverse_norm(i);
        self.rows.row(i).iter().map(move |&v| (f64::from(v) * inverse_norm) as f32)
    }

    /// The row that vector `i` was.
    pub(super) fn row(&self, i: usize) -> usize {
        self.invalid.iter().fold(i, |row, &invalid| row + usize::from(invalid <= row))
    }

    /// The number of distinct directions; counting stops at `enough`.
    pub(super) fn distinct(&self, enough: usize) -> usize {
        let mut seen = HashSet::new();
        for i in 0..self.len() {
            // Adding +0.0 makes -0.0 equal to it.
            seen.insert(self.unit(i).map(|v| (v + 0.0).to_bits()).collect::<Vec<u32>>());
            if seen.len() == enough {
                break;
            }
        }
        seen.len()
    }
}

/// The rows that have a direction, as float32, and the numbers of those that have none.
fn copy(rows: &Rows<'_>, par: &Par<'_>) -> Result<(Vec<f32>, Vec<usize>)> {
    let (n, dim) = (rows.len(), rows.dim());
    let mut singles = vec![0f32; n * dim];
    par.for_blocks(
        &mut singles,
        LOAD * dim,
        || rows.reader(),
        |reader, i, block| {
            let values = reader.read(i * LOAD..i * LOAD + block.len() / dim)?;
            for (single, row) in block.chunks_exact_mut(dim).zip(values.chunks_exact_mut(dim)) {
                // A row without direction stays all zero, which no other is.
                if let Ok(norm) = Norm::of(row) {
                    narrow(row, norm.value, single);
                }
            }
            Ok(())
        },
    )?;
    let is_invalid = |row: &usize| singles[row * dim..(row + 1) * dim].iter().all(|&v| v == 0.0);
    let invalid: Vec<usize> = (0..n).filter(is_invalid).collect();
    // The rows between two invalid ones move down together.
    let mut end = invalid.first().map_or(n, |&row| row);
    for (i, &row) in invalid.iter().enumerate() {
        let next = invalid.get(i + 1).map_or(n, |&row| row);
        singles.copy_within((row + 1) * dim..next * dim, end * dim);
        end += next - row - 1;
    }
    singles.truncate(end * dim);
    Ok((singles, invalid))
}

/// The direction of `row`, whose norm is given, as float32. What float32 holds does not change, so that a row is the same
/// whatever dtype it comes in; of others, and where there is no [`NORM_RANGE`], the largest number becomes one of 1 to 2.
fn narrow(row: &[f64], norm: f64, single: &mut [f32]) {
    single.iter_mut().zip(row).for_each(|(single, &v)| *single = v as f32);
    let is_exact = single.iter().zip(row).all(|(&single, &v)| f64::from(single) == v);
    if !(is_exact && NORM_RANGE.contains(&norm)) {
        let largest = row.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()));
        let exponent = libm::ilogb(largest);
        single.iter_mut().zip(row).for_each(|(single, &v)| *single = libm::scalbn(v, -exponent) as f32);
    }
}
