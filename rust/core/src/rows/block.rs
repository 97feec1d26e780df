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

    /// The rows of `range` as float64 into `out`; `bytes` is a buffer for what comes from a file.
    pub(super) fn read(&self, range: Range<usize>, bytes: &mut Vec<u64>, out: &mut [f64]) -> Result<()> {
        let (dim, size) = (self.dim(), self.dtype.size());
        assert!(range.end <= self.len() && out.len() == (range.end - range.start) * dim);
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
            unsafe { widen_row(first.offset(i as isize * strides[0]), strides[1], self.dtype, row) };
        }
        Ok(())
    }
}

/// One row as float64: every value of the four dtypes is a float64 too.
///
/// # Safety
/// `out.len()` numbers of `dtype`, `stride` bytes apart, must be readable from `first` on.
unsafe fn widen_row(first: *const u8, stride: isize, dtype: Dtype, out: &mut [f64]) {
    // SAFETY: handed on.
    unsafe {
        match dtype {
            Dtype::F16 if stride == 2 && first.cast::<f16>().is_aligned() => {
                std::slice::from_raw_parts(first.cast::<f16>(), out.len()).convert_to_f64_slice(out);
            }
            Dtype::F16 => widen(first, stride, out, |v: u16| f16::from_bits(v).to_f64()),
            // Not `bf16::to_f64`, which branches on subnormals and NaN: a shift is exact too, and vectorises.
            Dtype::Bf16 => widen(first, stride, out, |v: u16| f64::from(f32::from_bits(u32::from(v) << 16))),
            Dtype::F32 => widen(first, stride, out, |v: f32| f64::from(v)),
            Dtype::F64 => widen(first, stride, out, |v: f64| v),
        }
    }
}

/// # Safety
/// As [`widen_row`].
#[inline(always)]
unsafe fn widen<T: Copy>(first: *const u8, stride: isize, out: &mut [f64], to_f64: impl Fn(T) -> f64) {
    if stride == size_of::<T>() as isize {
        // A loop of its own: with the stride known it becomes vector loads.
        for (i, value) in out.iter_mut().enumerate() {
            // SAFETY: handed on.
            *value = to_f64(unsafe { first.cast::<T>().add(i).read_unaligned() });
        }
    } else {
        for (i, value) in out.iter_mut().enumerate() {
            // SAFETY: handed on.
            *value = to_f64(unsafe { first.offset(i as isize * stride).cast::<T>().read_unaligned() });
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
