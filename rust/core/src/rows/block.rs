//! One array or file of embeddings, and how its numbers become float64.

use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};

use super::convert;
use super::dtype::{Dtype, Element};
use super::file::RowFile;
use super::npy;
use crate::error::{Error, Result};
use crate::files::open_regular;
use crate::runtime::cpu;

/// (n, D) numbers of one dtype, in memory or in a `.npy` file.
#[derive(Debug)]
pub struct Block<'a> {
    shape: [usize; 2],
    dtype: Dtype,
    place: Place,
    memory: PhantomData<&'a ()>,
}

#[derive(Debug)]
enum Place {
    /// The first number, and the distances in bytes between rows and between columns. Need not be aligned.
    Memory { first: *const u8, strides: [isize; 2] },
    /// In C order.
    File(RowFile),
}

// SAFETY: the memory behind the pointer is only read, and outlives the block.
unsafe impl Send for Block<'_> {}
// SAFETY: threads that share a block only read the memory, as one alone does.
unsafe impl Sync for Block<'_> {}

impl<'a> Block<'a> {
    /// Borrows a slice in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] when `values` is not a whole number of rows.
    pub fn from_slice<T: Element>(values: &'a [T], dim: usize) -> Result<Self> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(Error::Shape(format!("{} numbers are no rows of {dim} dimensions", values.len())));
        }
        let size = T::DTYPE.size() as isize;
        // SAFETY: the strides stay within `values`, which the lifetime ties to the block.
        Ok(unsafe {
            Block::from_raw(values.as_ptr().cast(), [values.len() / dim, dim], [dim as isize * size, size], T::DTYPE)
        })
    }

    /// Borrows memory with any strides (in bytes), unaligned too.
    ///
    /// # Safety
    /// Every number that `shape` and `strides` reach from `first` must be readable, and not written, for `'a`.
    pub unsafe fn from_raw(first: *const u8, shape: [usize; 2], strides: [isize; 2], dtype: Dtype) -> Self {
        Block { shape, dtype, place: Place::Memory { first, strides }, memory: PhantomData }
    }

    /// Opens a `.npy` file and checks its header against its size.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] (not a `.npy`, truncated, Fortran order), [`Error::Dtype`], [`Error::Shape`].
    pub fn open(path: &Path) -> Result<Self> {
        let (mut file, metadata) = open_regular(path)?;
        let header = npy::read_header(&mut file, path)?;
        header.check_size(metadata.len(), path)?;
        let row_bytes = header.shape[1] * header.dtype.size();
        let place = Place::File(RowFile::new(file, path.to_owned(), header.offset, row_bytes));
        Ok(Block { shape: header.shape, dtype: header.dtype, place, memory: PhantomData })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.shape[1]
    }

    /// The kind of its numbers.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// What messages call this block, the `i`-th of its list.
    pub(super) fn name(&self, i: usize) -> String {
        match &self.place {
            Place::Memory { .. } => format!("part {i}"),
            Place::File(file) => file.path().display().to_string(),
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.dim() * self.dtype.size()
    }

    /// The file that the rows lie in, if they do.
    pub(super) fn file(&self) -> Option<&RowFile> {
        match &self.place {
            Place::File(file) => Some(file),
            Place::Memory { .. } => None,
        }
    }

    /// As [`Block::file`].
    pub(super) fn file_mut(&mut self) -> Option<&mut RowFile> {
        match &mut self.place {
            Place::File(file) => Some(file),
            Place::Memory { .. } => None,
        }
    }

    /// The bytes of the rows of `range` if they lie in memory in C order, or else none.
    pub(super) fn memory(&self, range: Range<usize>) -> &[u8] {
        let (row_bytes, size) = (self.row_bytes(), self.dtype.size());
        assert!(range.start <= range.end && range.end <= self.len());
        match self.place {
            Place::Memory { first, strides } if strides == [row_bytes as isize, size as isize] => {
                // SAFETY: without gaps, and `range` lies within the shape that `from_raw` vouches for.
                unsafe { std::slice::from_raw_parts(first.add(range.start * row_bytes), range.len() * row_bytes) }
            }
            _ => &[],
        }
    }

    /// The rows of `range`, which lie in memory, into `out`.
    pub(super) fn read<T: Number>(&self, range: Range<usize>, out: &mut [T]) {
        assert!(out.len() == range.len() * self.dim());
        let bytes = self.memory(range.clone());
        if bytes.len() == range.len() * self.row_bytes() {
            return widen(bytes, self.dtype, out);
        }
        let Place::Memory { first, strides } = self.place else {
            unreachable!("rows of a file are read by way of a buffer");
        };
        for (i, row) in range.zip(out.chunks_exact_mut(self.dim())) {
            // SAFETY: row `i` lies within the shape that `from_raw` vouches for.
            unsafe { read_row(first.offset(i as isize * strides[0]), strides[1], self.dtype, row) };
        }
    }
}

/// What rows are read as.
pub(super) trait Number: Copy {
    fn from_single(v: f32) -> Self;
    fn from_double(v: f64) -> Self;
    /// All of `bytes` by `convert`, which makes float32 of numbers of two bytes.
    fn from_halves(bytes: &[[u8; 2]], convert: fn(&[[u8; 2]], &mut [f32]), out: &mut [Self]);
}

impl Number for f64 {
    #[inline(always)]
    fn from_single(v: f32) -> f64 {
        v.into()
    }

    #[inline(always)]
    fn from_double(v: f64) -> f64 {
        v
    }

    fn from_halves(bytes: &[[u8; 2]], convert: fn(&[[u8; 2]], &mut [f32]), out: &mut [f64]) {
        let mut singles = [0.0; 1024];
        for (bytes, out) in bytes.chunks(singles.len()).zip(out.chunks_mut(singles.len())) {
            let singles = &mut singles[..bytes.len()];
            convert(bytes, singles);
            out.iter_mut().zip(singles).for_each(|(out, &mut v)| *out = v.into());
        }
    }
}

impl Number for f32 {
    #[inline(always)]
    fn from_single(v: f32) -> f32 {
        v
    }

    #[inline(always)]
    fn from_double(v: f64) -> f32 {
        v as f32
    }

    fn from_halves(bytes: &[[u8; 2]], convert: fn(&[[u8; 2]], &mut [f32]), out: &mut [f32]) {
        convert(bytes, out);
    }
}

/// The numbers of `bytes`, one after the other, into `out`.
pub(super) fn widen<T: Number>(bytes: &[u8], dtype: Dtype, out: &mut [T]) {
    assert_eq!(bytes.len(), out.len() * dtype.size());
    match dtype {
        Dtype::F16 => {
            T::from_halves(bytes.as_chunks().0, |halves, out| convert::from_f16(cpu::active(), halves, out), out)
        }
        Dtype::Bf16 => {
            T::from_halves(bytes.as_chunks().0, |halves, out| convert::from_bf16(cpu::active(), halves, out), out)
        }
        Dtype::F32 => {
            let singles = bytes.as_chunks().0.iter().map(|&v| T::from_single(f32::from_le_bytes(v)));
            out.iter_mut().zip(singles).for_each(|(out, v)| *out = v);
        }
        Dtype::F64 => {
            let doubles = bytes.as_chunks().0.iter().map(|&v| T::from_double(f64::from_le_bytes(v)));
            out.iter_mut().zip(doubles).for_each(|(out, v)| *out = v);
        }
    }
}

/// One row with gaps between its numbers into `out`.
///
/// # Safety
/// `out.len()` numbers of `dtype`, `stride` bytes apart, must be readable from `first` on.
unsafe fn read_row<T: Number>(first: *const u8, stride: isize, dtype: Dtype, out: &mut [T]) {
    for (i, value) in out.iter_mut().enumerate() {
        // SAFETY: `i` is below `out.len()`, and the caller promises that so many numbers are readable.
        unsafe {
            let number = first.offset(i as isize * stride);
            *value = match dtype {
                Dtype::F16 => T::from_single(number.cast::<f16>().read_unaligned().to_f32()),
                Dtype::Bf16 => T::from_single(number.cast::<bf16>().read_unaligned().to_f32()),
                Dtype::F32 => T::from_single(number.cast::<f32>().read_unaligned()),
                Dtype::F64 => T::from_double(number.cast::<f64>().read_unaligned()),
            };
        }
    }
}
