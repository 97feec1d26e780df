//! Images as callers hold them: encoded in memory, in files, or as arrays.

use std::io::{Error as IoError, ErrorKind, Read, Seek, SeekFrom};
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
    /// Encoded, in a larger file such as a tar file.
    Part {
        /// The file.
        path: &'a Path,
        /// Where the image begins in it.
        offset: u64,
        /// How many bytes it has.
        length: u64,
    },
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
            encoded => {
                encoded.with_bytes(limits, scratch, |bytes, scratch| gray_levels(bytes, options, limits, scratch, sink))
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
            encoded => encoded.with_bytes(limits, scratch, rgb),
        })
    }

    /// Calls `f` with the bytes of an encoded image, which is read if need be; one of too many bytes is not.
    pub(super) fn with_bytes<T>(
        self,
        limits: &Limits,
        scratch: &mut Scratch,
        f: impl FnOnce(&[u8], &mut Scratch) -> Result<T>,
    ) -> Result<T, Error> {
        let mut file = std::mem::take(&mut scratch.file);
        file.clear();
        let bytes = match self {
            Self::Bytes(bytes) => limits.check_bytes(bytes.len() as u64).map(|()| bytes)?,
            Self::Path(path) => read(path, None, limits, &mut file).map(|()| &*file)?,
            Self::Part { path, offset, length } => {
                read(path, Some((offset, length)), limits, &mut file).map(|()| &*file)?
            }
            Self::Array(_) => &[],
        };
        let outcome = f(bytes, scratch);
        file.clear();
        file.shrink_to(KEPT_BYTES);
        scratch.file = file;
        Ok(outcome?)
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

/// Reads a file, or so many bytes of it from an offset on, by as few calls of the system as there can be: on network disks
/// each takes its time.
fn read(path: &Path, part: Option<(u64, u64)>, limits: &Limits, to: &mut Vec<u8>) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.into(), source };
    let (mut file, metadata) = open_regular(path)?;
    let length = part.map_or(metadata.len(), |(_, length)| length);
    limits.check_bytes(length)?;
    if let Some((offset, _)) = part {
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
    }
    let read = |to: &mut Vec<u8>| {
        // Some systems' own files, such as those of /proc, do not know their length.
        if length == 0 {
            return file.take(limits.max_bytes.saturating_add(1)).read_to_end(to);
        }
        to.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
        // It is not asked whether something follows.
        file.take(length).read_to_end(to)
    };
    let got = read(to).map_err(io)? as u64;
    if part.is_some() && got < length {
        return Err(io(IoError::new(ErrorKind::UnexpectedEof, "the file was cut short while it was read")));
    }
    Ok(limits.check_bytes(got)?)
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
