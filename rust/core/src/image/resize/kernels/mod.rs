//! The weighted sums, of exactly the same bits by every kernel.
//!
//! A sum of weights times samples fits 32 bits. Fast kernels cut the weights into shorter digits, for which the CPU has
//! instructions that multiply and add several samples at once, and put the sums together modulo 2^32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use crate::runtime::cpu::dispatch;

/// Bits of a weight behind the point: what a sum of 8-bit samples leaves free of 32, less two for its sign and for
/// overshoot.
pub const PRECISION: u32 = 32 - 8 - 2;
/// A weight of one.
pub const ONE: i32 = 1 << PRECISION;
/// The number that a sum starts from, so that a shift rounds it.
pub const HALF: i32 = ONE / 2;
/// Weights that are applied at a time; each row of weights is filled up with zeros to a multiple of it.
pub const GROUP: usize = 4;

/// Rows that are resized horizontally at a time.
pub const STRIP: usize = 4;
/// Samples in a pixel.
pub const BANDS: usize = 3;
/// Bytes behind a row of a strip that are read, and weighed with zero.
pub const OVERHANG: usize = 16;
/// Rows between the passes are padded to a multiple of this: the most samples that a kernel takes at a time.
pub const LANES: usize = 64;

/// The samples of the input that one of the output is made of.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first of them.
    pub start: usize,
    /// The number of samples.
    pub len: usize,
    /// The place of its first group of weights.
    pub group: usize,
}

impl Span {
    /// The sample behind the last.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

/// The weights of one direction in groups, as the kernels of a level read them.
#[derive(Debug, Default)]
pub struct PackedWeights {
    /// By sample of the output: those of the input.
    pub spans: Vec<Span>,
    /// The weights of the spans, one after the other.
    pub groups: Vec<[i32; GROUP]>,
    /// The samples of the input that count.
    pub needed: Range<usize>,
}

impl PackedWeights {
    /// The weights of a span.
    pub fn groups(&self, span: &Span) -> &[[i32; GROUP]] {
        &self.groups[span.group..][..span.len.div_ceil(GROUP)]
    }
}

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
    /// Weights as [`horizontal`] and [`vertical`] of the same level read them.
    pub fn pack(level: Level, weights: [i32; GROUP]) -> [i32; GROUP] {
        Avx512Vnni => avx512::pack(weights),
        Avx2 => avx2::pack(weights),
        Scalar => weights,
    }
}

dispatch! {
    /// Resizes [`STRIP`] rows of pixels horizontally. A row of the input has [`OVERHANG`] bytes behind its pixels; a row
    /// of the output has one, which is overwritten.
    pub fn horizontal(level: Level, weights: &PackedWeights, input: &Rows<'_>, output: &mut RowsMut<'_>) {
        Avx512Vnni => avx512::horizontal(weights, input, output),
        Avx2 => avx2::horizontal(weights, input, output),
        Scalar => horizontal_scalar(weights, input, output),
    }
}

dispatch! {
    /// The sums of the samples that lie below each other in as many rows as there are weights in `groups`. Rows are
    /// padded to a multiple of [`LANES`].
    pub fn vertical(level: Level, groups: &[[i32; GROUP]], input: &Rows<'_>, output: &mut [u8]) {
        Avx512Vnni => avx512::vertical(groups, input, output),
        Avx2 => avx2::vertical(groups, input, output),
        Scalar => vertical_scalar(groups, input, output),
    }
}

fn horizontal_scalar(weights: &PackedWeights, input: &Rows<'_>, output: &mut RowsMut<'_>) {
    for y in 0..STRIP {
        let (row, out) = (&input.bytes[y * input.stride..], &mut output.bytes[y * output.stride..]);
        for (span, pixel) in weights.spans.iter().zip(out.chunks_exact_mut(BANDS)) {
            // A fourth place makes it a vector; its sample is the next pixel's.
            let mut sums = [HALF; 4];
            for (i, &weight) in weights.groups(span).as_flattened().iter().enumerate() {
                add(&mut sums, weight, &row[BANDS * (span.start + i)..]);
            }
            round(&sums, pixel);
        }
    }
}

fn vertical_scalar(groups: &[[i32; GROUP]], input: &Rows<'_>, output: &mut [u8]) {
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

/// Fails unless all that [`horizontal`] reads and writes is there: the kernels rely on it.
#[cfg(target_arch = "x86_64")]
fn check_horizontal(weights: &PackedWeights, input: &Rows<'_>, output: &RowsMut<'_>) {
    assert!(BANDS * weights.needed.end + OVERHANG <= input.stride && input.bytes.len() >= STRIP * input.stride);
    assert!(BANDS * weights.spans.len() < output.stride && output.bytes.len() >= STRIP * output.stride);
}

/// Fails unless all that [`vertical`] reads is there: the kernels rely on it.
#[cfg(target_arch = "x86_64")]
fn check_vertical(groups: &[[i32; GROUP]], input: &Rows<'_>, output: &[u8]) {
    assert!(output.len() <= input.stride && input.stride.is_multiple_of(LANES));
    assert!(input.bytes.len() >= groups.len() * GROUP * input.stride);
}
