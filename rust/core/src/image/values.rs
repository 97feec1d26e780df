//! Values of images as they are stored, from which the range of a collection can be told.

use super::{GrayOptions, Input, Limits, Output, Result, Scratch, decode};
use crate::error::Error;
use crate::runtime::parallel::Par;

/// The values of an image of more than 8 bits a sample: the name of their type, and some of them. `None` of 8 bits.
pub type Values = Option<(&'static str, Vec<f64>)>;

impl Input<'_> {
    /// Values of the chosen bands, about `count` at most, evenly spread over the image.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be read, [`Error::Image`] with the causes of [`decode`], and bands that are missing.
    fn values(
        self,
        options: &GrayOptions,
        count: usize,
        limits: &Limits,
        scratch: &mut Scratch,
    ) -> Result<Values, Error> {
        super::input::contained(scratch, |scratch| match self {
            Self::Array(image) => Ok(options.values(image, count)?),
            encoded => encoded.with_bytes(limits, scratch, |bytes, scratch| {
                options.values(decode(bytes, Output::Native, limits, scratch)?.as_ref(), count)
            }),
        })
    }
}

/// Values of every image, about `count` of each at most. One that fails leaves its cause in its place.
///
/// # Errors
///
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn values_from_inputs(
    inputs: &[Input<'_>],
    options: &GrayOptions,
    count: usize,
    limits: &Limits,
    par: &Par<'_>,
) -> Result<Vec<Result<Values, Error>>, Error> {
    par.map(inputs.len(), Scratch::default, |scratch, i| Ok(inputs[i].values(options, count, limits, scratch)))
}
