//! Rows in groups, as selection methods other than RS-Prune see them.
//!
//! All of them work on unit rows in float64, `x / |x|`, in the order of additions of [`lanes`](crate::assign::lanes).

use crate::assign::Direction;
use crate::error::Result;
use crate::par::Par;
use crate::rows::{Reader, Rows};

/// Rows of so many bytes, as float64, are read at a time: they stay in the cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Whether each row has a direction: is finite, and not all zero.
///
/// # Errors
/// What reading files can raise.
pub fn valid(rows: &Rows<'_>, par: &Par<'_>) -> Result<Vec<bool>> {
    for_rows(rows, par, |_, row| Direction::of(row).is_ok())
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
    par.for_blocks(
        &mut out,
        size,
        || rows.reader(),
        |reader: &mut Reader<'_>, i, block| {
            let start = i * size;
            let values = reader.read(start..start + block.len())?;
            for ((row, out), values) in (start..).zip(block).zip(values.chunks_exact_mut(dim)) {
                *out = f(row, values);
            }
            Ok(())
        },
    )?;
    Ok(out)
}
