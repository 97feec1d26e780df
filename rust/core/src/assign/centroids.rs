//! The centroids of an assignment: unit vectors.

use crate::error::{Error, Result};
use crate::linalg::norm::Norm;
use crate::rows::Rows;

/// Norms that are off by more than this are no rounding: such vectors are normalised.
const UNIT_TOLERANCE: f64 = 1e-3;

/// (K, D) unit vectors of float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Centroids {
    vectors: Vec<f32>,
    dim: usize,
    normalized: usize,
}

impl Centroids {
    /// The rows of `vectors` as centroids; those that are not of unit length are normalised in float64.
    ///
    /// # Errors
    /// [`Error::InvalidCentroid`] for one without a direction, [`Error::Argument`] for more than 2^31 - 1.
    pub fn new(vectors: &Rows<'_>) -> Result<Self> {
        let (k, dim) = (vectors.len(), vectors.dim());
        if i32::try_from(k).is_err() {
            return Err(Error::Argument(format!("{k} centroids; labels are 32-bit, so at most {} fit", i32::MAX)));
        }
        let mut reader = vectors.reader();
        let mut units = Vec::with_capacity(k * dim);
        let mut normalized = 0;
        for i in 0..k {
            let row = reader.read(i..i + 1)?;
            let norm = Norm::of(row).map_err(|why| Error::InvalidCentroid { centroid: i, why })?;
            if (norm.unscale(norm.value) - 1.0).abs() > UNIT_TOLERANCE {
                row.iter_mut().for_each(|v| *v /= norm.value);
                normalized += 1;
            }
            units.extend(row.iter().map(|&v| v as f32));
        }
        Ok(Centroids { vectors: units, dim, normalized })
    }

    /// Unit vectors that were made here.
    pub(crate) fn of_units(vectors: Vec<f32>, dim: usize) -> Self {
        Centroids { vectors, dim, normalized: 0 }
    }

    /// The vectors, C order.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// The vectors, C order.
    pub fn into_vectors(self) -> Vec<f32> {
        self.vectors
    }

    /// Numbers in a vector, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of vectors, K: at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.vectors.len() / self.dim
    }

    /// The number of vectors that were not of unit length as given.
    pub fn normalized(&self) -> usize {
        self.normalized
    }
}
