//! Which rows have a direction, and the norms of those that do.

use super::{Reader, Rows};
use crate::error::{Error, Result};
use crate::linalg::norm::Norm;
use crate::runtime::parallel::{Par, block_range};

/// Rows of so many bytes, as float64, are read at a time: they stay in the cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Tells of every row whether it has a direction: is finite, and not all zero.
///
/// # Errors
/// What reading files can raise.
pub fn valid(rows: &Rows<'_>, par: &Par<'_>) -> Result<Vec<bool>> {
    rows.map(par, |_, row| Norm::of(row).is_ok())
}

impl Rows<'_> {
    /// Calls `f(row number, row)` for every row, widened to float64, which `f` may change in place.
    pub(crate) fn map<T: Clone + Default + Send>(
        &self,
        par: &Par<'_>,
        f: impl Fn(usize, &mut [f64]) -> T + Sync + Send,
    ) -> Result<Vec<T>> {
        let size = (BLOCK_BYTES / (self.dim() * size_of::<f64>())).clamp(1, 4096);
        let mut out = vec![T::default(); self.len()];
        let one = |reader: &mut Reader<'_>, i: usize, block: &mut [T]| {
            let range = block_range(i, size, self.len());
            let values = reader.read(range.clone())?;
            for ((row, out), values) in range.zip(block).zip(values.chunks_exact_mut(self.dim())) {
                *out = f(row, values);
            }
            Ok(())
        };
        par.for_blocks(&mut out, size, || self.reader(), one)?;
        Ok(out)
    }
}

impl Reader<'_> {
    /// Reads row `i` as stored, or rescaled if its norm over- or underflows, and its norm.
    pub(crate) fn read_with_norm(&mut self, i: usize) -> Result<(&[f64], f64)> {
        let row = self.read(i..i + 1)?;
        match Norm::of(row) {
            Ok(norm) => Ok((row, norm.value)),
            Err(why) => Err(Error::InvalidRow { row: i, why }),
        }
    }
}
