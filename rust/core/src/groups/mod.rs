//! Rows in groups, as selection methods other than RS-Prune see them.
//!
//! All of it is float64 arithmetic over the rows as stored, dot products and norms being those of
//! [`linalg::dot`](crate::linalg::dot); sums over rows run in the order of the rows. No thread count shows.

mod herd;
mod median;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::linalg::dot::dot;
use crate::linalg::norm::Norm;
use crate::rows::{Reader, Rows};
use crate::runtime::parallel::Par;
pub use herd::herd;
pub use median::medians;

/// Rows of so many bytes, as float64, are read at a time: they stay in the cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Whether each row has a direction: is finite, and not all zero.
///
/// # Errors
/// What reading files can raise.
pub fn valid(rows: &Rows<'_>, par: &Par<'_>) -> Result<Vec<bool>> {
    for_rows(rows, par, |_, row| Norm::of(row).is_ok())
}

/// The Euclidean distance of each row, normalised, to the centre of its group. NaN for rows without a group.
///
/// # Errors
/// [`Error::Shape`] when labels or centres do not fit, [`Error::InvalidRow`] for a row with a group, but no direction,
/// and what reading files can raise.
pub fn distances(rows: &Rows<'_>, labels: &[i32], centres: &[f64], par: &Par<'_>) -> Result<Vec<f64>> {
    let dim = rows.dim();
    members(rows, labels, centres.len() / dim)?;
    let distances = for_rows(rows, par, |i, row| {
        let Ok(label) = usize::try_from(labels[i]) else { return Some(f64::NAN) };
        let norm = Norm::of(row).ok()?.value;
        row.iter_mut().zip(&centres[label * dim..]).for_each(|(v, centre)| *v = *v / norm - centre);
        Some(dot(row, row).sqrt())
    })?;
    if let Some(row) = distances.iter().position(Option::is_none) {
        return Err(Error::InvalidRow { row, why: "is in a group, but has no direction" });
    }
    Ok(distances.into_iter().flatten().collect())
}

/// The dot product of every row of `a` with every row of `b`, both as stored and both small.
///
/// # Errors
/// [`Error::Shape`] when they differ in dimension, and what reading files can raise.
pub fn dots(a: &Rows<'_>, b: &Rows<'_>, par: &Par<'_>) -> Result<Vec<f64>> {
    let dim = a.dim();
    if b.dim() != dim {
        return Err(Error::Shape(format!("rows of {dim} and of {} dimensions", b.dim())));
    }
    let others = b.reader().read(0..b.len())?.to_vec();
    let rows = par.map(
        a.len(),
        || a.reader(),
        |reader, i| {
            let row = reader.read(i..i + 1)?;
            Ok(others.chunks_exact(dim).map(|other| dot(row, other)).collect::<Vec<f64>>())
        },
    )?;
    Ok(rows.concat())
}

/// `exp(v / temperature)` of every value, divided by their sum: the same bits on every machine.
pub fn softmax(values: &[f64], temperature: f64) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.iter().map(|v| libm::exp((v - largest) / temperature)).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// The rows of every group, ascending.
fn members(rows: &Rows<'_>, labels: &[i32], k: usize) -> Result<Vec<Vec<usize>>> {
    if labels.len() != rows.len() {
        return Err(Error::Shape(format!("{} labels for {} rows", labels.len(), rows.len())));
    }
    let mut members = vec![Vec::new(); k];
    for (row, &label) in labels.iter().enumerate() {
        match usize::try_from(label) {
            Err(_) => {}
            Ok(group) if group < k => members[group].push(row),
            Ok(_) => {
                return Err(Error::Argument(format!("row {row} has label {label}; expected -1 to {}", k as i64 - 1)));
            }
        }
    }
    Ok(members)
}

/// Row `i` as stored, or rescaled if its norm over- or underflows, and its norm.
fn read_row<'r>(reader: &'r mut Reader<'_>, i: usize) -> Result<(&'r [f64], f64)> {
    let row = reader.read(i..i + 1)?;
    match Norm::of(row) {
        Ok(norm) => Ok((row, norm.value)),
        Err(why) => Err(Error::InvalidRow { row: i, why }),
    }
}

/// The range of the `i`-th piece of `n` things in pieces of `size`.
fn piece(i: usize, size: usize, n: usize) -> Range<usize> {
    i * size..n.min((i + 1) * size)
}

/// `f(row number, row)` of every row, widened to float64.
fn for_rows<T: Clone + Default + Send>(
    rows: &Rows<'_>,
    par: &Par<'_>,
    f: impl Fn(usize, &mut [f64]) -> T + Sync + Send,
) -> Result<Vec<T>> {
    let dim = rows.dim();
    let size = (BLOCK_BYTES / (dim * size_of::<f64>())).clamp(1, 4096);
    let mut out = vec![T::default(); rows.len()];
    let one = |reader: &mut Reader<'_>, i: usize, block: &mut [T]| {
        let range = piece(i, size, rows.len());
        let values = reader.read(range.clone())?;
        for ((row, out), values) in range.zip(block).zip(values.chunks_exact_mut(dim)) {
            *out = f(row, values);
        }
        Ok(())
    };
    par.for_blocks(&mut out, size, || rows.reader(), one)?;
    Ok(out)
}
