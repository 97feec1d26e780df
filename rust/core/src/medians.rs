//! The coordinate-wise medians of groups, and the distances of rows to a center of their group.
//!
//! All of it is float64 arithmetic over the rows as stored, so that the number of threads changes nothing.

use crate::error::{Error, Result};
use crate::linalg::dot::dot;
use crate::linalg::norm::Norm;
use crate::rows::labels::members;
use crate::rows::{Reader, Rows};
use crate::runtime::parallel::{Par, block_range};

/// The bytes of a group that a thread holds at a time, as columns.
const COLUMNS_BYTES: usize = 128 << 20;

/// Computes the median of every coordinate over the normalized rows of every group: (K, D) in C order. An even number of
/// rows has the mean of the middle two, an empty group NaN.
///
/// # Errors
/// As [`distances`].
pub fn medians(rows: &Rows<'_>, labels: &[i32], k: usize, par: &Par<'_>) -> Result<Vec<f64>> {
    let members = members(labels, rows.len(), k)?;
    let of_group = |(reader, columns): &mut (Reader<'_>, Vec<f64>), group: usize| {
        of_rows(reader, rows.dim(), &members[group], columns, COLUMNS_BYTES)
    };
    Ok(par.map(k, || (rows.reader(), Vec::new()), of_group)?.concat())
}

/// Computes the Euclidean distance of each row, normalized, to the center of its group, or NaN for rows without a group.
///
/// # Errors
/// [`Error::Shape`] when labels do not fit the rows, [`Error::Argument`] for labels without a center,
/// [`Error::InvalidRow`] for a row with a group, but no direction, and what reading files can raise.
pub fn distances(rows: &Rows<'_>, labels: &[i32], centers: &[f64], par: &Par<'_>) -> Result<Vec<f64>> {
    let dim = rows.dim();
    members(labels, rows.len(), centers.len() / dim)?;
    let distances = rows.map(par, |i, row| {
        let Ok(label) = usize::try_from(labels[i]) else { return Some(f64::NAN) };
        let norm = Norm::of(row).ok()?.value;
        row.iter_mut().zip(&centers[label * dim..]).for_each(|(v, center)| *v = *v / norm - center);
        Some(dot(row, row).sqrt())
    })?;
    if let Some(row) = distances.iter().position(Option::is_none) {
        return Err(Error::InvalidRow { row, why: "is in a group, but has no direction" });
    }
    Ok(distances.into_iter().flatten().collect())
}

/// Computes the medians of the rows `members`, as many columns at a time as fit into `bytes`.
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
        let some = block_range(i, at_once, dim);
        columns.resize(n * some.len(), 0.0);
        for (place, &member) in members.iter().enumerate() {
            let (row, norm) = reader.read_with_norm(member)?;
            for (column, v) in columns.chunks_exact_mut(n).zip(&row[some.clone()]) {
                column[place] = v / norm;
            }
        }
        medians.extend(columns.chunks_exact_mut(n).map(median));
    }
    Ok(medians)
}

/// Finds the median of at least one number, none of them NaN, and reorders them.
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

    fn rows(values: &[f32]) -> Rows<'_> {
        Rows::from_slice(values, 2).unwrap()
    }

    #[test]
    fn medians_are_those_of_unit_rows() {
        // (1, 0), (0, 1), (0.6, 0.8) in group 0; (-1, 0) and (0, -1) in group 2; group 1 is empty; the last is in none.
        let values = [2.0, 0.0, 0.0, 5.0, 3.0, 4.0, -7.0, 0.0, 0.0, -1.0, 1.0, 1.0];
        let got = medians(&rows(&values), &[0, 0, 0, 2, 2, -1], 3, &Par::new(Some(2))).unwrap();
        assert_eq!((&got[..2], &got[4..]), (&[0.6, 0.8][..], &[-0.5, -0.5][..]));
        assert!(got[2].is_nan() && got[3].is_nan());
    }

    #[test]
    fn distances_are_to_the_own_center() {
        let values = [2.0, 0.0, 0.0, 5.0, f32::NAN, 0.0];
        let centers = [1.0, 1.0, 0.0, 0.0];
        let got = distances(&rows(&values), &[0, 1, -1], &centers, &Par::new(Some(2))).unwrap();
        assert_eq!(got[..2], [1.0, 1.0]);
        assert!(got[2].is_nan());
        let error = distances(&rows(&values), &[0, 1, 1], &centers, &Par::new(Some(2)));
        assert!(matches!(error, Err(Error::InvalidRow { row: 2, .. })));
    }

    #[test]
    fn labels_out_of_range_are_named() {
        let values = [1.0, 0.0, 3.0, 0.0];
        let par = Par::new(Some(1));
        assert!(matches!(medians(&rows(&values), &[0, 2], 2, &par), Err(Error::Argument(_))));
        assert!(matches!(medians(&rows(&values), &[0], 2, &par), Err(Error::Shape(_))));
    }

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
        dot(&row, &row).sqrt()
    }
}
