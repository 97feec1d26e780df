//! Upsampling of components that are stored with fewer samples than the image has pixels.
//!
//! Factors of two are interpolated linearly, from samples that lie between the pixels they were averaged of (libjpeg's
//! "fancy" upsampling): 3/4 of the nearer sample and 1/4 of the farther. The rounding alternates from pixel to pixel, so
//! that no bias is left. Other factors repeat samples.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::ops::Range;

use super::frame::{Component, Frame};
use super::unsupported;
use crate::image::Result;
use crate::runtime::cpu::{Level, dispatch};

/// How a component's rows become rows of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsampling {
    /// They are rows of the image.
    None,
    /// Twice as wide, interpolated.
    Across,
    /// Twice as high, interpolated.
    Down,
    /// Both.
    Both,
    /// Each sample repeated so often across and down.
    Repeat(usize, usize),
}

impl Upsampling {
    /// What `component` of `frame` needs.
    pub fn of(component: &Component, frame: &Frame) -> Result<Self> {
        let (h, v) = (component.h, component.v);
        if !frame.max_h.is_multiple_of(h) || !frame.max_v.is_multiple_of(v) {
            let (max_h, max_v) = (frame.max_h, frame.max_v);
            return Err(unsupported(format!("sampling factors {h} x {v} beside {max_h} x {max_v}: no whole ratio")));
        }
        // Rows of two samples are too short for interpolation, libjpeg finds.
        let wide = component.width > 2;
        Ok(match (frame.max_h / h, frame.max_v / v) {
            (1, 1) => Self::None,
            (2, 1) if wide => Self::Across,
            (1, 2) => Self::Down,
            (2, 2) if wide => Self::Both,
            (across, down) => Self::Repeat(across, down),
        })
    }

    /// Whether a row of the image depends on two rows of the component.
    pub fn interpolates_rows(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }

    /// The component's rows that row `y` of the image comes from: the nearer one, and the farther one, if any, with
    /// clamping at the component's `height`.
    pub fn rows(self, y: usize, height: usize) -> (usize, usize) {
        match self {
            Self::None | Self::Across => (y, y),
            Self::Down | Self::Both => {
                let near = y / 2;
                let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(height - 1) };
                (near, far)
            }
            Self::Repeat(_, down) => (y / down, y / down),
        }
    }
}

/// Makes a row of the image. `y` is its number, `near` and `far` are the component's rows that [`Upsampling::rows`] names,
/// as wide as the component; `out` is as wide as they become.
pub fn row(level: Level, upsampling: Upsampling, y: usize, near: &[u8], far: &[u8], out: &mut [u8]) {
    match upsampling {
        Upsampling::None => out.copy_from_slice(near),
        Upsampling::Repeat(across, _) => {
            out.chunks_exact_mut(across).zip(near).for_each(|(copies, &sample)| copies.fill(sample));
        }
        Upsampling::Across => across(level, near, out),
        Upsampling::Down => {
            // 1 above, 2 below: the alternating rounding.
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
                *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
            }
        }
        Upsampling::Both => both(level, near, far, out),
    }
}

dispatch! {
    /// Interpolates to twice the width.
    fn across(level: Level, samples: &[u8], out: &mut [u8]) {
        Avx2 => avx2::across(samples, out),
        Scalar => across_outside(samples, out, 0..0),
    }
}

dispatch! {
    /// Interpolates between two rows, and to twice the width.
    fn both(level: Level, near: &[u8], far: &[u8], out: &mut [u8]) {
        Avx2 => avx2::both(near, far, out),
        Scalar => both_outside(near, far, out, 0..0),
    }
}

/// The pixels of the samples that are not in `done`. Past the row's ends its first and last sample are repeated.
pub fn across_outside(samples: &[u8], out: &mut [u8], done: Range<usize>) {
    let last = samples.len() - 1;
    let sample = |i: usize| u16::from(samples[i]);
    for x in (0..done.start).chain(done.end..=last) {
        let near = 3 * sample(x);
        out[2 * x] = ((near + sample(x.saturating_sub(1)) + 1) >> 2) as u8;
        out[2 * x + 1] = ((near + sample((x + 1).min(last)) + 2) >> 2) as u8;
    }
}

/// The same for two rows, whose weighted sum is interpolated.
pub fn both_outside(near: &[u8], far: &[u8], out: &mut [u8], done: Range<usize>) {
    let last = near.len() - 1;
    let sum = |i: usize| 3 * u16::from(near[i]) + u16::from(far[i]);
    for x in (0..done.start).chain(done.end..=last) {
        let mid = 3 * sum(x);
        out[2 * x] = ((mid + sum(x.saturating_sub(1)) + 8) >> 4) as u8;
        out[2 * x + 1] = ((mid + sum((x + 1).min(last)) + 7) >> 4) as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::cpu;

    fn doubled(level: Level, upsampling: Upsampling, near: &[u8], far: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 2 * near.len()];
        row(level, upsampling, 0, near, far, &mut out);
        out
    }

    proptest! {
        #[test]
        fn kernels_agree_at_every_width(rows in prop::collection::vec(any::<(u8, u8)>(), 3..150)) {
            let (near, far): (Vec<u8>, Vec<u8>) = rows.into_iter().unzip();
            for upsampling in [Upsampling::Across, Upsampling::Both] {
                let [portable, fast] =
                    [Level::Scalar, cpu::active()].map(|level| doubled(level, upsampling, &near, &far));
                prop_assert_eq!(portable, fast);
            }
        }
    }

    #[test]
    fn interpolation_weighs_three_to_one() {
        assert_eq!(doubled(Level::Scalar, Upsampling::Across, &[0, 100, 8], &[]), [0, 25, 75, 77, 31, 8]);
        assert_eq!(doubled(Level::Scalar, Upsampling::Both, &[0, 100, 8], &[16, 100, 8]), [4, 28, 76, 77, 31, 8]);
        let mut out = [0; 2];
        row(Level::Scalar, Upsampling::Down, 0, &[10, 11], &[13, 12], &mut out);
        assert_eq!(out, [11, 11]);
        row(Level::Scalar, Upsampling::Down, 1, &[10, 11], &[12, 12], &mut out);
        assert_eq!(out, [11, 11]);
    }

    #[test]
    fn rows_are_clamped_at_both_ends() {
        let rows: Vec<_> = (0..6).map(|y| Upsampling::Both.rows(y, 3)).collect();
        assert_eq!(rows, [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]);
        assert_eq!(Upsampling::Repeat(1, 4).rows(7, 2), (1, 1));
    }
}
