//! Identity of rows: the BLAKE3 hash of their numbers. BLAKE3 is a hash tree, which all threads compute together, and
//! any other tool that implements it gets the same digest.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use super::{Dtype, Reader, Rows};
use crate::error::Result;
use crate::runtime::parallel::Par;

/// Bytes that a thread hashes at a time: a power of two, like the nodes of the tree.
const SUBTREE: usize = 1 << 20;

/// The hash of the rows in C order as little-endian float32, or as float64 if any number needs it, in hexadecimal.
///
/// # Errors
/// As [`Reader::read`].
pub fn digest(rows: &Rows<'_>, par: &Par<'_>) -> Result<String> {
    let number = if rows.holds(Dtype::F64) { Number::of_all(rows, par)? } else { Number::Single };
    let bytes = Bytes { rows, number };
    let total = bytes.len();
    if total <= SUBTREE {
        let whole = |hasher: &mut Hasher| hasher.finalize();
        return Ok(bytes.hash(&mut rows.reader(), &mut Vec::new(), 0, whole)?.to_hex().to_string());
    }
    let scratch = || (rows.reader(), Vec::new());
    let leaves = par.map(total.div_ceil(SUBTREE), scratch, |(reader, buffer), i| {
        bytes.hash(reader, buffer, i * SUBTREE, |hasher| hasher.finalize_non_root())
    })?;
    let (left, right) = children(&leaves, total);
    Ok(merge_subtrees_root(&left, &right, Mode::Hash).to_hex().to_string())
}

/// The nodes below that of the `leaves` of `length` bytes.
fn children(leaves: &[ChainingValue], length: usize) -> (ChainingValue, ChainingValue) {
    let left = left_subtree_len(length as u64) as usize;
    let (leaves, others) = leaves.split_at(left / SUBTREE);
    (node(leaves, left), node(others, length - left))
}

fn node(leaves: &[ChainingValue], length: usize) -> ChainingValue {
    match leaves {
        [only] => *only,
        several => {
            let (left, right) = children(several, length);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

/// The dtype that the numbers are hashed as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Single,
    Double,
}

impl Number {
    /// float32 if it represents all numbers.
    fn of_all(rows: &Rows<'_>, par: &Par<'_>) -> Result<Self> {
        const BLOCK: usize = 256;
        let is_single = |&v: &f64| f64::from(v as f32) == v || v.is_nan();
        let of_block = |reader: &mut Reader<'_>, i: usize| {
            Ok(reader.read(i * BLOCK..rows.len().min((i + 1) * BLOCK))?.iter().all(is_single))
        };
        let are_single = par.map(rows.len().div_ceil(BLOCK), || rows.reader(), of_block)?;
        Ok(if are_single.into_iter().all(|all| all) { Number::Single } else { Number::Double })
    }
}

/// Converts rows to the bytes that are hashed.
struct Bytes<'r> {
    rows: &'r Rows<'r>,
    number: Number,
}

impl Bytes<'_> {
    fn row(&self) -> usize {
        let size = if self.number == Number::Single { size_of::<f32>() } else { size_of::<f64>() };
        self.rows.dim() * size
    }

    fn len(&self) -> usize {
        self.rows.len() * self.row()
    }

    /// Applies `finish` to the subtree that begins at byte `start`.
    fn hash<T>(
        &self,
        reader: &mut Reader<'_>,
        buffer: &mut Vec<u8>,
        start: usize,
        finish: impl FnOnce(&mut Hasher) -> T,
    ) -> Result<T> {
        let end = self.len().min(start + SUBTREE);
        let range = start / self.row()..end.div_ceil(self.row());
        let first = range.start * self.row();
        let lies_there = cfg!(target_endian = "little") && self.rows.singles(range.clone()).is_some();
        let bytes = if lies_there {
            self.rows.memory(range)
        } else {
            buffer.clear();
            match self.number {
                Number::Double => buffer.extend(reader.read(range)?.iter().flat_map(|v| v.to_le_bytes())),
                Number::Single if self.rows.holds(Dtype::F64) => {
                    buffer.extend(reader.read(range)?.iter().flat_map(|&v| (v as f32).to_le_bytes()));
                }
                Number::Single => {
                    buffer.extend(reader.read_single(range, 0..0)?.0.iter().flat_map(|v| v.to_le_bytes()));
                }
            }
            buffer
        };
        let mut hasher = Hasher::new();
        hasher.set_input_offset(start as u64).update(&bytes[start - first..end - first]);
        Ok(finish(&mut hasher))
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::Block;
    use super::*;

    fn of(rows: &Rows<'_>, threads: usize) -> String {
        digest(rows, &Par::new(Some(threads))).unwrap()
    }

    #[test]
    fn it_is_the_standard_hash_of_the_bytes_at_any_size_and_thread_count() {
        // A single number, about one subtree, and several subtrees that rows straddle.
        for (n, dim) in [(1, 1), (7, 3), (1 << 12, 64), ((1 << 12) + 1, 64), (4001, 257), (9001, 131), (3, 400_000)] {
            let values: Vec<f32> = (0..n * dim).map(|i| (i as f32).sin()).collect();
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let expected = blake3::hash(&bytes).to_hex().to_string();
            for threads in [1, 2, 5] {
                assert_eq!(of(&Rows::from_slice(&values, dim).unwrap(), threads), expected, "{n} x {dim}");
            }
        }
    }

    #[test]
    fn the_dtype_does_not_show_unless_it_holds_more() {
        let (n, dim) = (3000, 190);
        let halves: Vec<f16> = (0..n * dim).map(|i| f16::from_f32((i as f32).sin())).collect();
        let singles: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
        let mut doubles: Vec<f64> = halves.iter().map(|v| v.to_f64()).collect();
        let expected = of(&Rows::from_slice(&singles, dim).unwrap(), 2);
        assert_eq!(of(&Rows::from_slice(&halves, dim).unwrap(), 2), expected);
        assert_eq!(of(&Rows::from_slice(&doubles, dim).unwrap(), 2), expected);
        let (first, second) = (&halves[..dim * 1000], &doubles[dim * 1000..]);
        let parts = vec![Block::from_slice(first, dim).unwrap(), Block::from_slice(second, dim).unwrap()];
        assert_eq!(of(&Rows::new(parts).unwrap(), 2), expected);
        doubles[dim * 2999] += 1e-12;
        let bytes: Vec<u8> = doubles.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(of(&Rows::from_slice(&doubles, dim).unwrap(), 2), blake3::hash(&bytes).to_hex().to_string());
    }
}
