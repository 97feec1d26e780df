//! Stage I: the entropy of an image's gray levels.

mod histogram;

pub use histogram::{Histogram, LEVELS};

use crate::error::{Error, ImageError, Result};
use crate::image::{self, ImageRef, Input, Limits, Reduction};
use crate::par::Par;

/// What one thread keeps from image to image.
#[derive(Default)]
pub struct Scratch {
    decoder: image::Scratch,
    histogram: Histogram,
}

/// The Shannon entropy of a histogram in bits, `-sum p_k log2 p_k` over its non-zero counts in the order of levels (RS-Prune,
/// arXiv 2512.23239, eq. 1). `None` of a histogram without counts.
pub fn entropy_from_counts(counts: &[u64]) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let term = |count: u64| {
        let p = count as f64 / total as f64;
        p * libm::log2(p)
    };
    (total > 0).then(|| counts.iter().filter(|&&count| count > 0).fold(0.0, |sum, &count| sum - term(count)))
}

/// The entropy of decoded samples.
///
/// # Errors
///
/// Those of [`Reduction::gray_levels`], and [`ImageError::NoValidPixels`].
pub fn entropy_from_samples(
    image: ImageRef<'_>,
    reduction: &Reduction,
    histogram: &mut Histogram,
) -> image::Result<f64> {
    histogram.clear();
    reduction.gray_levels(image, |levels| histogram.add(levels))?;
    entropy_from_counts(histogram.counts()).ok_or(ImageError::NoValidPixels)
}

/// The entropy of one image.
///
/// # Errors
///
/// Those of [`Input::with_image`] and [`entropy_from_samples`].
pub fn entropy_from_input(
    input: Input<'_>,
    reduction: &Reduction,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<f64> {
    let Scratch { decoder, histogram } = scratch;
    input.with_image(reduction.output(), limits, decoder, |image| entropy_from_samples(image, reduction, histogram))
}

/// The entropy of every image. One that fails leaves its cause in its place and does not stop the others.
///
/// # Errors
///
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn entropies_from_inputs(
    inputs: &[Input<'_>],
    reduction: &Reduction,
    limits: &Limits,
    par: &Par<'_>,
) -> Result<Vec<Result<f64>>> {
    par.map(inputs.len(), Scratch::default, |scratch, i| Ok(entropy_from_input(inputs[i], reduction, limits, scratch)))
}

/// The entropy of each of `n` arrays, which `with_array` lends one at a time. An array of nodata alone has NaN.
///
/// # Errors
///
/// Those of [`Reduction::gray_levels`], [`Error::Interrupted`] and [`Error::Threads`].
pub fn entropies_from_arrays(
    n: usize,
    with_array: impl Fn(usize, &mut dyn FnMut(ImageRef<'_>)) + Sync + Send,
    reduction: &Reduction,
    par: &Par<'_>,
) -> Result<Vec<f64>> {
    par.map(n, Histogram::default, |histogram, i| {
        let mut outcome = Ok(f64::NAN);
        with_array(i, &mut |image| outcome = entropy_from_samples(image, reduction, histogram));
        match outcome {
            Err(ImageError::NoValidPixels) => Ok(f64::NAN),
            outcome => outcome.map_err(Error::Image),
        }
    })
}
