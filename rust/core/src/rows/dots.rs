//! Dot products of all pairs of rows of two small matrices.

use super::Rows;
use crate::error::{Error, Result};
use crate::linalg::dot::dot;
use crate::runtime::parallel::Par;

/// Computes the dot product of every row of `a` with every row of `b`, both as stored: (N, K) in C order. `b` is held in
/// memory as float64.
///
/// # Errors
/// [`Error::Shape`] when they differ in dimension, and what reading files can raise.
pub fn dots(a: &Rows<'_>, b: &Rows<'_>, par: &Par<'_>) -> Result<Vec<f64>> {
    let dim = a.dim();
    if b.dim() != dim {
        return Err(Error::Shape(format!("rows of {dim} and of {} dimensions", b.dim())));
    }
    let others = b.reader().read(0..b.len())?.to_vec();
    let products = a.map(par, |_, row| others.chunks_exact(dim).map(|other| dot(row, other)).collect::<Vec<f64>>())?;
    Ok(products.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_row() {
        let (a, b) = ([1f32, 2.0, 3.0, 4.0, 0.0, -1.0], [2f32, 1.0, 0.5, -1.0]);
        let (a, b) = (Rows::from_slice(&a, 2).unwrap(), Rows::from_slice(&b, 2).unwrap());
        for threads in [1, 3] {
            let got = dots(&a, &b, &Par::new(Some(threads))).unwrap();
            assert_eq!(got, [4.0, -1.5, 10.0, -2.5, -1.0, 1.0]);
        }
    }

    #[test]
    fn differing_dimensions_are_refused() {
        let (a, b) = (Rows::from_slice(&[1f32; 6], 2).unwrap(), Rows::from_slice(&[1f32; 6], 3).unwrap());
        assert!(matches!(dots(&a, &b, &Par::new(Some(1))), Err(Error::Shape(_))));
    }
}
