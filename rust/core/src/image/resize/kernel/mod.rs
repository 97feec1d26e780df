//! The weighted sums, of exactly the same bits by every kernel.
//!
//! A sum of weights times samples fits 32 bits. Fast kernels cut the weights into shorter digits, for which the CPU has
//! instructions that multiply and add several samples at once, and put the sums together modulo 2^32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::taps::{GROUP, HALF, PRECISION, Taps};
use crate::runtime::cpu::dispatch;

/// Rows that are resized horizontally at a time.
pub const STRIP: usize = 4;
/// Samples in a pixel.
pub const BANDS: usize = 3;
/// Bytes behind a row of a strip that are read, and weighed with zero.
pub const OVERHANG: usize = 16;
/// What the rows between the passes are padded to a multiple of: the samples that any kernel takes at a time.
pub const LANES: usize = 64;

/// Rows of bytes, one every `stride`.
pub struct Rows<'a> {
    /// All of them.
    pub bytes: &'a [u8],
    /// From one to the next.
    pub stride: usize,
}

/// Rows to write to.
pub struct RowsMut<'a> {
    /// All of them.
    pub bytes: &'a mut [u8],
    /// From one to the next.
    pub stride: usize,
}

dispatch! {
    /// Weights as [`across`] and [`down`] of the same level read them.
    pub fn pack(level: Level, weights: [i32; GROUP]) -> [i32; GROUP] {
        Avx512Vnni => avx512::pack(weights),
        Avx2 => avx2::pack(weights),
        Scalar => weights,
    }
}

dispatch! {
    /// Resizes [`STRIP`] rows of pixels horizontally. A row of the input has [`OVERHANG`] bytes behind its pixels; a row
    /// of the output has one, which is overwritten.
    pub fn across(level: Level, taps: &Taps, input: &Rows<'_>, output: &mut RowsMut<'_>) {
        Avx512Vnni => avx512::across(taps, input, output),
        Avx2 => avx2::across(taps, input, output),
        Scalar => across_scalar(taps, input, output),
    }
}

dispatch! {
    /// The sums of the samples that lie below each other in as many rows as there are weights in `groups`. Rows are
    /// padded to a multiple of [`LANES`].
    pub fn down(level: Level, groups: &[[i32; GROUP]], input: &Rows<'_>, output: &mut [u8]) {
        Avx512Vnni => avx512::down(groups, input, output),
        Avx2 => avx2::down(groups, input, output),
        Scalar => down_scalar(groups, input, output),
    }
}

fn across_scalar(taps: &Taps, input: &Rows<'_>, output: &mut RowsMut<'_>) {
    for y in 0..STRIP {
        let (row, out) = (&input.bytes[y * input.stride..], &mut output.bytes[y * output.stride..]);
        for (span, pixel) in taps.spans().iter().zip(out.chunks_exact_mut(BANDS)) {
            // A fourth place makes it a vector; its sample is the next pixel's.
            let mut sums = [HALF; 4];
            for (i, &weight) in taps.groups(span).as_flattened().iter().enumerate() {
                add(&mut sums, weight, &row[BANDS * (span.start + i)..]);
            }
            round(&sums, pixel);
        }
    }
}

fn down_scalar(groups: &[[i32; GROUP]], input: &Rows<'_>, output: &mut [u8]) {
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let mut sums = [HALF; LANES];
        for (i, &weight) in groups.as_flattened().iter().enumerate() {
            add(&mut sums, weight, &input.bytes[i * input.stride + block * LANES..]);
        }
        round(&sums, output);
    }
}

/// Adds samples times a weight.
fn add<const N: usize>(sums: &mut [i32; N], weight: i32, samples: &[u8]) {
    let samples = &samples[..N];
    sums.iter_mut().zip(samples).for_each(|(sum, &sample)| *sum = sum.wrapping_add(weight * i32::from(sample)));
}

/// The sums without what is behind the point, saturated.
fn round(sums: &[i32], samples: &mut [u8]) {
    samples.iter_mut().zip(sums).for_each(|(sample, sum)| *sample = (sum >> PRECISION).clamp(0, 255) as u8);
}

/// Fails unless all that [`across`] reads and writes is there: the kernels rely on it.
#[cfg(target_arch = "x86_64")]
fn check_across(taps: &Taps, input: &Rows<'_>, output: &RowsMut<'_>) {
    assert!(BANDS * taps.needed().end + OVERHANG <= input.stride && input.bytes.len() >= STRIP * input.stride);
    assert!(BANDS * taps.spans().len() < output.stride && output.bytes.len() >= STRIP * output.stride);
}

/// Fails unless all that [`down`] reads is there: the kernels rely on it.
#[cfg(target_arch = "x86_64")]
fn check_down(groups: &[[i32; GROUP]], input: &Rows<'_>, output: &[u8]) {
    assert!(output.len() <= input.stride && input.stride.is_multiple_of(LANES));
    assert!(input.bytes.len() >= groups.len() * GROUP * input.stride);
}
