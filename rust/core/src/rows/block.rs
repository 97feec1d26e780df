//! One array or file of embeddings, and how its numbers become float64.

use std::fs::File;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::dtype::{Dtype, Element};
use super::npy;
use crate::error::{Error, Result};

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
    /// C order from `offset` on. Read, not mapped: pages of a map count as the process's own memory, and a file that
    /// shrinks under a map kills the process.
    File { file: File, path: PathBuf, offset: u64 },
}

// SAFETY: the memory behind the pointer is only read, and outlives the block.
unsafe impl Send for Block<'_> {}
// SAFETY: as above.
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
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let header = npy::read_header(&mut file, path)?;
        let size = file.metadata().map_err(io)?.len();
        header.check_size(size, path)?;
        let place = Place::File { file, path: path.to_owned(), offset: header.offset };
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
            Place::File { path, .. } => path.display().to_string(),
        }
    }

    /// The bytes of the rows of `range` if they lie in memory in C order, or else none.
    pub(super) fn memory(&self, range: Range<usize>) -> &[u8] {
        let (dim, size) = (self.dim(), self.dtype.size());
        assert!(range.start <= range.end && range.end <= self.len());
        match self.place {
            Place::Memory { first, strides } if strides == [(dim * size) as isize, size as isize] => {
                // SAFETY: without gaps, and `range` lies within the shape that `from_raw` vouches for.
                unsafe { std::slice::from_raw_parts(first.add(range.start * dim * size), range.len() * dim * size) }
            }
            _ => &[],
        }
    }

    /// The rows of `range` into `out`; `bytes` is a buffer for what comes from a file.
    pub(super) fn read<T: Number>(&self, range: Range<usize>, bytes: &mut Vec<u64>, out: &mut [T]) -> Result<()> {
        let (dim, size) = (self.dim(), self.dtype.size());
        assert!(range.end <= self.len() && out.len() == range.len() * dim);
        let (first, strides) = match &self.place {
            // SAFETY: `range` lies within the shape that `from_raw` vouches for.
            Place::Memory { first, strides } => (unsafe { first.offset(range.start as isize * strides[0]) }, *strides),
            Place::File { file, path, offset } => {
                let length = out.len() * size;
                bytes.resize(length.div_ceil(8), 0);
                // SAFETY: any bit pattern is a u64, and `length` bytes fit into the buffer.
                let buffer = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<u8>(), length) };
                let position = offset + (range.start * dim * size) as u64;
                read_exact_at(file, buffer, position).map_err(|source| match source.kind() {
                    std::io::ErrorKind::UnexpectedEof => Error::Format {
                        path: path.clone(),
                        why: format!("truncated while it was read: it ends before row {}", range.end),
                    },
                    _ => Error::Io { path: path.clone(), source },
                })?;
                (buffer.as_ptr(), [(dim * size) as isize, size as isize])
            }
        };
        for (i, row) in out.chunks_exact_mut(dim).enumerate() {
            // SAFETY: row `i` lies within the shape that `from_raw` vouches for, or within the buffer just filled.
            unsafe { read_row(first.offset(i as isize * strides[0]), strides[1], self.dtype, row) };
        }
        Ok(())
    }
}

/// What rows are read as.
pub(super) trait Number: Copy {
    fn from_halves(halves: &[f16], out: &mut [Self]);
    fn from_single(v: f32) -> Self;
    fn from_double(v: f64) -> Self;
}

impl Number for f64 {
    fn from_halves(halves: &[f16], out: &mut [f64]) {
        halves.convert_to_f64_slice(out);
    }

    #[inline(always)]
    fn from_single(v: f32) -> f64 {
        v.into()
    }

    #[inline(always)]
    fn from_double(v: f64) -> f64 {
        v
    }
}

impl Number for f32 {
    fn from_halves(halves: &[f16], out: &mut [f32]) {
        halves.convert_to_f32_slice(out);
    }

    #[inline(always)]
    fn from_single(v: f32) -> f32 {
        v
    }

    #[inline(always)]
    fn from_double(v: f64) -> f32 {
        v as f32
    }
}

/// One row into `out`.
///
/// # Safety
/// `out.len()` numbers of `dtype`, `stride` bytes apart, must be readable from `first` on.
unsafe fn read_row<T: Number>(first: *const u8, stride: isize, dtype: Dtype, out: &mut [T]) {
    // SAFETY: handed on.
    unsafe {
        match dtype {
            Dtype::F16 if stride == 2 && first.cast::<f16>().is_aligned() => {
                T::from_halves(std::slice::from_raw_parts(first.cast::<f16>(), out.len()), out);
            }
            Dtype::F16 => each(first, stride, out, |v: u16| T::from_single(f16::from_bits(v).to_f32())),
            // Not `bf16::to_f32`, which branches on subnormals and NaN: a shift is exact too, and vectorises.
            Dtype::Bf16 => each(first, stride, out, |v: u16| T::from_single(f32::from_bits(u32::from(v) << 16))),
            Dtype::F32 => each(first, stride, out, T::from_single),
            Dtype::F64 => each(first, stride, out, T::from_double),
        }
    }
}

/// # Safety
/// As [`read_row`].
#[inline(always)]
unsafe fn each<V: Copy, T>(first: *const u8, stride: isize, out: &mut [T], convert: impl Fn(V) -> T) {
    if stride == size_of::<V>() as isize {
        // A loop of its own: with the stride known it becomes vector loads.
        for (i, value) in out.iter_mut().enumerate() {
            // SAFETY: handed on.
            *value = convert(unsafe { first.cast::<V>().add(i).read_unaligned() });
        }
    } else {
        for (i, value) in out.iter_mut().enumerate() {
            // SAFETY: handed on.
            *value = convert(unsafe { first.offset(i as isize * stride).cast::<V>().read_unaligned() });
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], position: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, position)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut position: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, position)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => (buffer, position) = (&mut buffer[n..], position + n as u64),
        }
    }
    Ok(())
}
