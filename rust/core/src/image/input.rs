//! Images as callers hold them: encoded in memory, in files, or as arrays.

use std::path::Path;

use super::{ImageRef, Limits, Output, Reduction, Result, Scratch, decode};
use crate::error::Error;
use crate::par::Par;

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
    /// Calls `f` with the image, which is read and decoded if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be read, [`Error::Image`] with the causes of [`decode`] and of `f`.
    pub fn with_image<T>(
        self,
        output: Output,
        limits: &Limits,
        scratch: &mut Scratch,
        f: impl FnOnce(ImageRef<'_>) -> Result<T>,
    ) -> Result<T, Error> {
        let read;
        let bytes = match self {
            Self::Array(image) => return Ok(f(image)?),
            Self::Bytes(bytes) => bytes,
            Self::Path(path) => {
                read = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
                &read
            }
        };
        let image = decode(bytes, output, limits, scratch)?;
        let outcome = f(image.as_ref())?;
        scratch.recycle(image);
        Ok(outcome)
    }
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
    reduction: &Reduction,
    limits: &Limits,
    par: &Par<'_>,
) -> Result<Vec<Result<Rgb, Error>>, Error> {
    par.map(inputs.len(), Scratch::default, |scratch, i| {
        Ok(inputs[i].with_image(Output::Native, limits, scratch, |image| reduction.rgb(image)))
    })
}
