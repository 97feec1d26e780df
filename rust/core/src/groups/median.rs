//! The coordinate-wise medians of groups.

use super::{members, piece, read_row};
use crate::error::Result;
use crate::rows::{Reader, Rows};
use crate::runtime::parallel::Par;

/// A thread holds this much of a group at a time, as columns.
const COLUMNS_BYTES: usize = 128 << 20;

/// The median of every coordinate over the normalised rows of every group: (K, D) in C order. An even number of rows has
/// the mean of the middle two, an empty group NaN.
///
/// # Errors
/// As [`super::distances`].
pub fn medians(rows: &Rows<'_>, labels: &[i32], k: usize, par: &Par<'_>) -> Result<Vec<f64>> {
    let members = members(rows, labels, k)?;
    let of_group = |(reader, columns): &mut (Reader<'_>, Vec<f64>), group: usize| {
        of_rows(reader, rows.dim(), &members[group], columns, COLUMNS_BYTES)
    };
    Ok(par.map(k, || (rows.reader(), Vec::new()), of_group)?.concat())
}

fn of_rows(
    reader: &mut Reader<'_>,
    dim: usize,
    members: &[usize],
    columns: &mut Vec<f64>,
    bytes: usize,
) -> Result<Vec<f64>> {
    let n = members.len();
    if n == 0 {
        return Ok(vec![f64::NAN; dim]);
    }
    let at_once = (bytes / (n * size_of::<f64>())).clamp(1, dim);
    let mut medians = Vec::with_capacity(dim);
    for i in 0..dim.div_ceil(at_once) {
        let some = piece(i, at_once, dim);
        columns.resize(n * some.len(), 0.0);
        for (place, &member) in members.iter().enumerate() {
            let (row, norm) = read_row(reader, member)?;
            for (column, v) in columns.chunks_exact_mut(n).zip(&row[some.clone()]) {
                column[place] = v / norm;
            }
        }
        medians.extend(columns.chunks_exact_mut(n).map(median));
    }
    Ok(medians)
}

/// The median of numbers, at least one, none of them NaN. Reorders them.
fn median(column: &mut [f64]) -> f64 {
    let middle = column.len() / 2;
    let even = column.len().is_multiple_of(2);
    let (below, &mut upper, _) = column.select_nth_unstable_by(middle, f64::total_cmp);
    // Adding +0.0 makes one zero of the two.
    let lower = if even { below.iter().copied().fold(f64::NEG_INFINITY, f64::max) } else { upper };
    (lower + upper) / 2.0 + 0.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_are_sorted_halves_however_many_are_held(
            values in proptest::collection::vec(-3i8..4, 4..120), dim in 1usize..6, bytes in 1usize..400,
        ) {
            let values: Vec<f32> = values.iter().map(|&v| f32::from(v) + 0.5).collect();
            let n = (values.len() / dim).max(1);
            let values: Vec<f32> = values.iter().copied().cycle().take(n * dim).collect();
            let rows = Rows::from_slice(&values, dim).unwrap();
            let all: Vec<usize> = (0..n).collect();
            let got = of_rows(&mut rows.reader(), dim, &all, &mut Vec::new(), bytes).unwrap();
            for (c, &median) in got.iter().enumerate() {
                let mut column: Vec<f64> = all
                    .iter()
                    .map(|&i| {
                        let (row, norm) = (rows.reader().read(i..i + 1).unwrap().to_vec(), norm(&values[i * dim..][..dim]));
                        row[c] / norm
                    })
                    .collect();
                column.sort_by(f64::total_cmp);
                prop_assert_eq!(median, (column[(n - 1) / 2] + column[n / 2]) / 2.0);
            }
        }
    }

    fn norm(row: &[f32]) -> f64 {
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        crate::linalg::dot::dot(&row, &row).sqrt()
    }
}
