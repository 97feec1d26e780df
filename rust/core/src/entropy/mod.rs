//! Stage I: the entropy of an image's gray levels.

#[cfg(target_arch = "x86_64")]
mod bit_sliced;
mod histogram;
mod laplacian;
mod levels;
mod log_terms;
mod scores;

pub use histogram::LEVELS;
pub use levels::Levels;
pub use scores::Scores;

use crate::error::{Error, ImageError, Result};
use crate::image::{self, GrayOptions, ImageRef, Input, Limits};
use crate::runtime::parallel::Par;
use log_terms::LogTerms;

/// Buffers that a thread keeps from image to image.
#[derive(Default)]
pub struct Scratch {
    decoder: image::Scratch,
    levels: Levels,
    terms: LogTerms,
}

impl Scratch {
    /// That for scores.
    fn of_scores() -> Self {
        Scratch { levels: Levels::with_laplacian(), ..Scratch::default() }
    }

    /// The entropy of the histogram.
    fn entropy(&mut self) -> image::Result<f64> {
        self.terms.entropy(self.levels.counts()).ok_or(ImageError::NoValidPixels)
    }
}

/// The Shannon entropy of a histogram in bits, `-sum p_k log2 p_k` over its non-zero counts in the order of levels (RS-Prune,
/// arXiv 2512.23239, eq. 1). `None` of a histogram without counts.
pub fn entropy_from_counts(counts: &[u64]) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    (total > 0).then(|| counts.iter().filter(|&&count| count > 0).fold(0.0, |sum, &count| sum - term(count, total)))
}

/// `p log2 p` of the share that `count` has of `total`.
fn term(count: u64, total: u64) -> f64 {
    let p = count as f64 / total as f64;
    p * libm::log2(p)
}

/// The entropy of one image.
///
/// # Errors
///
/// Those of [`Input::gray_levels`], and [`ImageError::NoValidPixels`].
pub fn entropy_from_input(
    input: Input<'_>,
    options: &GrayOptions,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<f64> {
    scratch.levels.clear();
    input.gray_levels(options, limits, &mut scratch.decoder, &mut scratch.levels)?;
    Ok(scratch.entropy()?)
}

/// The entropy of every image. One that fails leaves its cause in its place and does not stop the others.
///
/// # Errors
///
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn entropies_from_inputs(
    inputs: &[Input<'_>],
    options: &GrayOptions,
    limits: &Limits,
    par: &Par<'_>,
) -> Result<Vec<Result<f64>>> {
    par.map(inputs.len(), Scratch::default, |scratch, i| Ok(entropy_from_input(inputs[i], options, limits, scratch)))
}

/// The entropy and the scores of every image, from one decoding. One that fails leaves its cause in its place.
///
/// # Errors
///
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn scores_from_inputs(
    inputs: &[Input<'_>],
    options: &GrayOptions,
    limits: &Limits,
    par: &Par<'_>,
) -> Result<Vec<Result<(f64, Scores)>>> {
    par.map(inputs.len(), Scratch::of_scores, |scratch, i| {
        let entropy = entropy_from_input(inputs[i], options, limits, scratch);
        Ok(entropy.map(|entropy| (entropy, Scores::of(&mut scratch.levels))))
    })
}

/// The entropy of each of `n` arrays, which `with_array` lends one at a time. One that fails leaves its cause in its place.
///
/// # Errors
///
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn entropies_from_arrays(
    n: usize,
    with_array: impl Fn(usize, &mut dyn FnMut(ImageRef<'_>)) + Sync + Send,
    options: &GrayOptions,
    par: &Par<'_>,
) -> Result<Vec<Result<f64>>> {
    par.map(n, Scratch::default, |scratch, i| {
        let mut outcome = Err(ImageError::NoValidPixels);
        with_array(i, &mut |image| {
            scratch.levels.clear();
            outcome = options.gray_levels(image, &mut scratch.levels).and_then(|()| scratch.entropy());
        });
        Ok(outcome.map_err(Error::Image))
    })
}
