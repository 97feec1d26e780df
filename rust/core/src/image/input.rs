//! Images as callers hold them: encoded in memory, in files, or as arrays.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{GrayOptions, ImageRef, LevelSink, Limits, Output, Result, Scratch, decode, gray_levels};
use crate::error::{Error, ImageError};
use crate::files::open_regular;
use crate::runtime::parallel::Par;

/// An image, where it lies.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Encoded, in memory.
    Bytes(&'a [u8]),
    /// Encoded, in a file.
    Path(&'a Path),
    /// Decoded.
    Array(ImageRef<'a>),
}

impl Input<'_> {
    /// Hands the gray levels of the image's valid pixels to `sink`; the image is read and decoded if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be read, [`Error::Image`] with the causes of [`gray_levels`].
    pub fn gray_levels(
        self,
        options: &GrayOptions,
        limits: &Limits,
        scratch: &mut Scratch,
        sink: &mut impl LevelSink,
    ) -> Result<(), Error> {
        contained(scratch, |scratch| match self {
            Self::Array(image) => Ok(options.gray_levels(image, sink)?),
            Self::Bytes(bytes) => Ok(gray_levels(bytes, options, limits, scratch, sink)?),
            Self::Path(path) => {
                with_file(path, scratch, |bytes, scratch| gray_levels(bytes, options, limits, scratch, sink))
            }
        })
    }

    /// The image's chosen bands as RGB; it is read and decoded if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be read, [`Error::Image`] with the causes of [`decode`] and [`GrayOptions::rgb`].
    pub fn rgb(self, options: &GrayOptions, limits: &Limits, scratch: &mut Scratch) -> Result<Rgb, Error> {
        let rgb =
            |bytes: &[u8], scratch: &mut Scratch| options.rgb(decode(bytes, Output::Native, limits, scratch)?.as_ref());
        contained(scratch, |scratch| match self {
            Self::Array(image) => Ok(options.rgb(image)?),
            Self::Bytes(bytes) => Ok(rgb(bytes, scratch)?),
            Self::Path(path) => with_file(path, scratch, rgb),
        })
    }
}

/// Works on one image: a panic of its decoder becomes its error, and the memory that was counted for it is given back.
pub(super) fn contained<T>(
    scratch: &mut Scratch,
    work: impl FnOnce(&mut Scratch) -> Result<T, Error>,
) -> Result<T, Error> {
    let outcome = catch_unwind(AssertUnwindSafe(|| work(scratch)));
    scratch.release();
    outcome.unwrap_or_else(|panic| {
        *scratch = Scratch::default();
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let detail = format!("its decoder failed: {}", text.unwrap_or("no reason given"));
        Err(Error::Image(ImageError::Corrupt { format: "image", detail }))
    })
}

/// What one file leaves of its buffer to the next. The rest is given back.
const KEPT_BYTES: usize = 16 << 20;

/// Calls `f` with the content of a file.
pub(super) fn with_file<T>(
    path: &Path,
    scratch: &mut Scratch,
    f: impl FnOnce(&[u8], &mut Scratch) -> Result<T>,
) -> Result<T, Error> {
    let mut file = std::mem::take(&mut scratch.file);
    file.clear();
    read(path, &mut file)?;
    let outcome = f(&file, scratch);
    file.clear();
    file.shrink_to(KEPT_BYTES);
    scratch.file = file;
    Ok(outcome?)
}

/// Reads a file by as few calls of the system as there can be: on network disks each takes its time.
fn read(path: &Path, to: &mut Vec<u8>) -> Result<(), Error> {
    let (mut file, metadata) = open_regular(path)?;
    let length = metadata.len();
    // Some systems' own files, such as those of /proc, do not know their length.
    let read = |to: &mut Vec<u8>| {
        if length == 0 {
            return file.read_to_end(to);
        }
        to.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
        // It is not asked whether something follows.
        file.take(length).read_to_end(to)
    };
    read(to).map(drop).map_err(|source| Error::Io { path: path.into(), source })
}

/// 8-bit RGB samples, interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The samples.
    pub samples: Vec<u8>,
}

/// Every image as RGB, as encoders want it. One that fails leaves its cause in its place and does not stop the others.
///
/// # Errors
///
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn rgb_from_inputs(
    inputs: &[Input<'_>],
    options: &GrayOptions,
    limits: &Limits,
    par: &Par<'_>,
) -> Result<Vec<Result<Rgb, Error>>, Error> {
    par.map(inputs.len(), Scratch::default, |scratch, i| Ok(inputs[i].rgb(options, limits, scratch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_error_of_its_image() {
        let mut scratch = Scratch::default();
        let error = contained(&mut scratch, |_| -> Result<(), Error> { panic!("capacity overflow") }).unwrap_err();
        assert_eq!(error.to_string(), "corrupt image: its decoder failed: capacity overflow");
        assert_eq!(contained(&mut scratch, |_| Ok(3)).unwrap(), 3);
    }
}
