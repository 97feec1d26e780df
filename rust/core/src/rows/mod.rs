//! Embeddings where they lie: arrays in memory, `.npy` files, and any sequence of both, read block by block.
//!
//! [`Rows`] is one (N, D) matrix made of [`Block`]s, each of float16, bfloat16, float32 or float64. A [`Reader`] converts
//! ranges of rows to float64, which is exact for all four, or to float32, which is exact for all but float64. Memory is
//! bounded by the range that is read, however large the matrix.

mod block;
mod buffer;
mod convert;
mod digest;
mod dots;
mod dtype;
mod file;
pub(crate) mod labels;
mod npy;
mod valid;

use std::ops::Range;

pub use block::Block;
pub use digest::digest;
pub use dots::dots;
pub use dtype::{Dtype, Element};
pub use valid::valid;

use self::block::{Number, widen};
use self::buffer::Buffer;
use self::file::RowFile;
use crate::error::{Error, Result};

/// An (N, D) matrix of embeddings, in one or more blocks.
#[derive(Debug)]
pub struct Rows<'a> {
    blocks: Vec<Block<'a>>,
    /// `starts[i]..starts[i + 1]` are the rows of block `i`.
    starts: Vec<usize>,
    dim: usize,
}

impl<'a> Rows<'a> {
    /// Concatenates the rows of `blocks`.
    ///
    /// # Errors
    /// [`Error::Empty`] when there are no rows, [`Error::Shape`] when the blocks differ in dimension or have none.
    pub fn new(mut blocks: Vec<Block<'a>>) -> Result<Self> {
        let Some(first) = blocks.first() else {
            return Err(Error::Empty("no embeddings: the list of arrays and files is empty".into()));
        };
        let dim = first.dim();
        if let Some((i, odd)) = blocks.iter().enumerate().find(|(_, b)| b.dim() != dim) {
            return Err(Error::Shape(format!(
                "{} has rows of {} dimensions, but {} has {dim}: all parts must come from one encoder",
                odd.name(i),
                odd.dim(),
                first.name(0),
            )));
        }
        if dim == 0 {
            return Err(Error::Shape(format!("{} has rows of 0 dimensions", first.name(0))));
        }
        let mut starts = vec![0];
        let mut total = 0;
        for block in &blocks {
            total += block.len();
            starts.push(total);
        }
        if total == 0 {
            return Err(Error::Empty("no embeddings: 0 rows".into()));
        }
        let in_files = blocks.iter().filter(|b| b.file().is_some()).map(|b| (b.len() * b.row_bytes()) as u64).sum();
        if file::memory_bytes().is_some_and(|memory| memory / 2 < in_files) {
            blocks.iter_mut().filter_map(Block::file_mut).for_each(RowFile::read_past_cache);
        }
        Ok(Rows { blocks, starts, dim })
    }

    /// Borrows the rows of a slice in C order.
    ///
    /// # Errors
    /// As [`Rows::new`].
    pub fn from_slice<T: Element>(values: &'a [T], dim: usize) -> Result<Self> {
        Rows::new(vec![Block::from_slice(values, dim)?])
    }

    /// Number of rows, N: at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.starts[self.blocks.len()]
    }

    /// Dimension of a row, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether any block has this dtype.
    pub fn holds(&self, dtype: Dtype) -> bool {
        self.blocks.iter().any(|block| block.dtype() == dtype)
    }

    /// The bytes of the rows of `range` if they lie in memory without gaps, or else none.
    pub fn memory(&self, range: Range<usize>) -> &[u8] {
        let i = self.starts.partition_point(|&start| start <= range.start).saturating_sub(1);
        match self.blocks.get(i) {
            Some(block) if range.end <= self.starts[i + 1] => {
                block.memory(range.start - self.starts[i]..range.end - self.starts[i])
            }
            _ => &[],
        }
    }

    /// The rows of `range` if they are in memory as float32 in C order.
    pub fn singles(&self, range: Range<usize>) -> Option<&[f32]> {
        let count = range.len() * self.dim;
        let is_single = self.blocks.iter().all(|block| block.dtype() == Dtype::F32);
        // SAFETY: every bit pattern is a float32.
        let (before, singles, _) = unsafe { self.memory(range).align_to() };
        (is_single && before.is_empty() && singles.len() == count).then_some(singles)
    }

    /// The largest size in bytes of a row in a file; None if all rows are in memory.
    pub fn file_row_bytes(&self) -> Option<usize> {
        self.blocks.iter().filter(|block| block.file().is_some()).map(Block::row_bytes).max()
    }

    /// A reader with its own buffers, for one thread.
    pub fn reader(&self) -> Reader<'_> {
        Reader { rows: self, fetched: Fetched::new(), wide: Vec::new(), single: Vec::new() }
    }

    /// The number of the block that `row` lies in.
    fn block_of(&self, row: usize) -> usize {
        self.starts.partition_point(|&start| start <= row) - 1
    }

    /// `range` block by block: each block's number, and its rows by their number in `range` and in the block.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        assert!(range.start <= range.end && range.end <= self.len(), "rows {range:?} of {}", self.len());
        let first = if range.is_empty() { self.blocks.len() } else { self.block_of(range.start) };
        (first..self.blocks.len()).take_while(move |&i| self.starts[i] < range.end).map(move |i| {
            let (start, end) = (self.starts[i], self.starts[i + 1]);
            (i, range.start.max(start) - start..range.end.min(end) - start)
        })
    }
}

/// Reads ranges of rows.
#[derive(Debug)]
pub struct Reader<'r> {
    rows: &'r Rows<'r>,
    fetched: Fetched,
    wide: Vec<f64>,
    single: Vec<f32>,
}

impl Reader<'_> {
    /// Fetches the rows of `range` that are in files, in as large pieces as possible. Parts of `range` can then be read
    /// without file access.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn fetch(&mut self, range: Range<usize>) -> Result<()> {
        self.fetched.fill(self.rows, range)
    }

    /// The rows of `range` in C order, converted exactly to float64. They may be changed in place.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] when a file cannot be read any more.
    pub fn read(&mut self, range: Range<usize>) -> Result<&mut [f64]> {
        self.wide.resize(range.len() * self.rows.dim, 0.0);
        read_into(self.rows, &mut self.fetched, range, &mut self.wide)?;
        Ok(&mut self.wide)
    }

    /// The rows of `range` in C order as float32, which is exact for all dtypes but float64. Rows that are in memory as
    /// such are not copied. Also returns the bytes of the rows of `next`, as far as they are already in memory.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_single(&mut self, range: Range<usize>, next: Range<usize>) -> Result<(&[f32], &[u8])> {
        if let Some(singles) = self.rows.singles(range.clone()) {
            return Ok((singles, self.fetched.bytes(self.rows, next)));
        }
        self.single.resize(range.len() * self.rows.dim, 0.0);
        read_into(self.rows, &mut self.fetched, range, &mut self.single)?;
        Ok((&self.single, self.fetched.bytes(self.rows, next)))
    }
}

/// Converts the rows of `range` into `out`.
fn read_into<T: Number>(rows: &Rows<'_>, fetched: &mut Fetched, range: Range<usize>, out: &mut [T]) -> Result<()> {
    if !fetched.holds(&range) {
        fetched.fill(rows, range.clone())?;
    }
    let mut rest = out;
    for (i, part) in rows.pieces(range) {
        let (out, tail) = rest.split_at_mut(part.len() * rows.dim);
        match fetched.of_file(rows, i, part.clone()) {
            Some(bytes) => widen(bytes, rows.blocks[i].dtype(), out),
            None => rows.blocks[i].read(part, out),
        }
        rest = tail;
    }
    Ok(())
}

/// The raw bytes of those rows of a range that are in files.
#[derive(Debug)]
struct Fetched {
    range: Range<usize>,
    /// The offset in the buffer of the first row of each block of the range.
    starts: Vec<usize>,
    buffer: Buffer,
}

impl Fetched {
    fn new() -> Self {
        Fetched { range: 0..0, starts: Vec::new(), buffer: Buffer::new() }
    }

    fn fill(&mut self, rows: &Rows<'_>, range: Range<usize>) -> Result<()> {
        self.range = 0..0;
        self.starts.clear();
        let space = |(i, part): (usize, Range<usize>)| rows.blocks[i].file().map_or(0, |file| file.space(part.len()));
        let buffer = self.buffer.at_least(rows.pieces(range.clone()).map(space).sum());
        let mut end = 0;
        for (i, part) in rows.pieces(range.clone()) {
            let start = end;
            end += space((i, part.clone()));
            let lead = match rows.blocks[i].file() {
                Some(file) => file.read(part, &mut buffer[start..end])?,
                None => 0,
            };
            self.starts.push(start + lead);
        }
        self.range = range;
        Ok(())
    }

    fn holds(&self, range: &Range<usize>) -> bool {
        self.range.start <= range.start && range.end <= self.range.end
    }

    /// The rows of `part` of block `i`, which must have been fetched, if that block is a file.
    fn of_file(&self, rows: &Rows<'_>, i: usize, part: Range<usize>) -> Option<&[u8]> {
        rows.blocks[i].file()?;
        let row_bytes = rows.blocks[i].row_bytes();
        let skipped = part.start - self.range.start.saturating_sub(rows.starts[i]);
        let start = self.starts[i - rows.block_of(self.range.start)] + skipped * row_bytes;
        Some(&self.buffer.bytes()[start..start + part.len() * row_bytes])
    }

    /// The bytes of the rows of `range` if they lie in memory without gaps, fetched or not, or else none.
    fn bytes<'s>(&'s self, rows: &'s Rows<'_>, range: Range<usize>) -> &'s [u8] {
        match rows.pieces(range.clone()).next() {
            Some((i, part)) if self.holds(&range) && part.len() == range.len() => {
                self.of_file(rows, i, part).unwrap_or_else(|| rows.memory(range))
            }
            _ => rows.memory(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    /// Blocks of all dtypes and layouts hold the same small integers, which every dtype represents.
    fn value(row: usize, column: usize) -> f64 {
        ((row * 7 + column * 3) % 256) as f64 - 100.0
    }

    #[test]
    fn blocks_of_all_dtypes_read_as_one_matrix() {
        let dim = 5;
        let part = |rows: Range<usize>| rows.flat_map(|r| (0..dim).map(move |c| value(r, c)));
        let a: Vec<f16> = part(0..3).map(f16::from_f64).collect();
        let b: Vec<bf16> = part(3..4).map(bf16::from_f64).collect();
        let c: Vec<f32> = part(4..9).map(|v| v as f32).collect();
        let d: Vec<f64> = part(9..11).collect();
        let rows = Rows::new(vec![
            Block::from_slice(&a, dim).unwrap(),
            Block::from_slice(&[] as &[f32], dim).unwrap(),
            Block::from_slice(&b, dim).unwrap(),
            Block::from_slice(&c, dim).unwrap(),
            Block::from_slice(&d, dim).unwrap(),
        ])
        .unwrap();
        assert_eq!((rows.len(), rows.dim()), (11, dim));
        assert!(rows.holds(Dtype::F64));
        let mut reader = rows.reader();
        for start in 0..=11 {
            for end in start..=11 {
                let expected: Vec<f64> = part(start..end).collect();
                assert_eq!(reader.read(start..end).unwrap(), expected, "rows {start}..{end}");
            }
        }
    }

    #[test]
    fn differing_dimensions_name_the_block() {
        let (a, b) = ([0f32; 6], [0f32; 8]);
        let blocks = vec![Block::from_slice(&a, 3).unwrap(), Block::from_slice(&b, 4).unwrap()];
        let error = Rows::new(blocks).unwrap_err().to_string();
        assert!(error.contains("part 1") && error.contains("4 dimensions") && error.contains("has 3"), "{error}");
    }

    #[test]
    fn nothing_is_an_error() {
        assert!(matches!(Rows::new(vec![]), Err(Error::Empty(_))));
        assert!(matches!(Rows::from_slice(&[] as &[f32], 3), Err(Error::Empty(_))));
        assert!(matches!(Rows::from_slice(&[] as &[f32], 0), Err(Error::Shape(_))));
        assert!(matches!(Rows::from_slice(&[0f32; 7], 3), Err(Error::Shape(_))));
    }

    proptest! {
        #[test]
        fn strides_of_any_sign_are_followed(n in 1usize..6, dim in 1usize..9, reverse_rows: bool, reverse_columns: bool) {
            let values: Vec<f32> = (0..n * dim).map(|i| value(i / dim, i % dim) as f32).collect();
            let first = if reverse_rows { (n - 1) * dim } else { 0 } + if reverse_columns { dim - 1 } else { 0 };
            let sign = |reverse: bool| if reverse { -1 } else { 1 };
            // SAFETY: the strides stay within `values`, which outlives the block.
            let block = unsafe {
                Block::from_raw(
                    values.as_ptr().add(first).cast(),
                    [n, dim],
                    [sign(reverse_rows) * 4 * dim as isize, sign(reverse_columns) * 4],
                    Dtype::F32,
                )
            };
            let rows = Rows::new(vec![block]).unwrap();
            let mut reader = rows.reader();
            for (i, &v) in reader.read(0..n).unwrap().iter().enumerate() {
                let (r, c) = (i / dim, i % dim);
                let r = if reverse_rows { n - 1 - r } else { r };
                let c = if reverse_columns { dim - 1 - c } else { c };
                prop_assert_eq!(v, value(r, c));
            }
        }
    }
}
