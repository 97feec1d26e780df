//! The inverse DCT: coefficients to samples.
//!
//! The algorithm is that of Loeffler, Ligtenberg and Moschytz (ICASSP 1989) with 12 multiplications a row, in 13-bit fixed
//! point, columns first: libjpeg's "accurate integer" method. Where hostile coefficients leave the range that images have,
//! it wraps and saturates at 16 bits, as the method's vector implementations do.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::scan::Block;
use crate::runtime::cpu::dispatch;

/// Bits behind the point in the constants.
pub const POINT: i32 = 13;
/// Bits behind the point that the column pass leaves to the row pass.
pub const HALFWAY: i32 = 2;

/// Constants as the differences and sums in which the multiplications take them.
pub mod factor {
    const fn fixed(x: f64) -> i32 {
        (x * (1 << super::POINT) as f64 + 0.5) as i32
    }

    /// Even part: what coefficient 2 and 6 give to the outer sums, and to the inner.
    pub const OUTER: [i32; 2] = [fixed(0.541196100) + fixed(0.765366865), fixed(0.541196100)];
    /// See [`OUTER`].
    pub const INNER: [i32; 2] = [fixed(0.541196100), fixed(0.541196100) - fixed(1.847759065)];
    /// Odd part: what the sums 7 + 3 and 5 + 1 give to the terms of 7 and 5, and to those of 5 and 1.
    pub const SUMS_73: [i32; 2] = [fixed(1.175875602) - fixed(1.961570560), fixed(1.175875602)];
    /// See [`SUMS_73`].
    pub const SUMS_51: [i32; 2] = [fixed(1.175875602), fixed(1.175875602) - fixed(0.390180644)];
    /// Odd part: what coefficients 7 and 1 give to the term of 7, and to that of 1.
    pub const TERM_7: [i32; 2] = [fixed(0.298631336) - fixed(0.899976223), -fixed(0.899976223)];
    /// See [`TERM_7`].
    pub const TERM_1: [i32; 2] = [-fixed(0.899976223), fixed(1.501321110) - fixed(0.899976223)];
    /// Odd part: what coefficients 5 and 3 give to the term of 5, and to that of 3.
    pub const TERM_5: [i32; 2] = [fixed(2.053119869) - fixed(2.562915447), -fixed(2.562915447)];
    /// See [`TERM_5`].
    pub const TERM_3: [i32; 2] = [-fixed(2.562915447), fixed(3.072711026) - fixed(2.562915447)];
}

dispatch! {
    /// Turns a row of blocks into eight rows of samples, `stride` apart, that start with `out`.
    pub fn row_of_blocks(level: Level, blocks: &[Block], quantizer: &[u16; 64], out: &mut [u8], stride: usize) {
        Avx2 => avx2::row_of_blocks(blocks, quantizer, out, stride),
        Scalar => {
            for (x, block) in blocks.iter().enumerate() {
                let samples = inverse(block, quantizer);
                for (y, row) in samples.chunks_exact(8).enumerate() {
                    out[y * stride + 8 * x..][..8].copy_from_slice(row);
                }
            }
        },
    }
}

/// The samples of one block.
pub fn inverse(block: &Block, quantizer: &[u16; 64]) -> [u8; 64] {
    if block[1..].iter().all(|&coefficient| coefficient == 0) {
        return [flat(block[0].wrapping_mul(quantizer[0] as i16)); 64];
    }
    let mut rows = [[0i16; 8]; 8];
    for (i, (&coefficient, &step)) in block.iter().zip(quantizer).enumerate() {
        rows[i / 8][i % 8] = coefficient.wrapping_mul(step as i16);
    }
    let columns = if rows_below_are_zero(block) {
        // Columns of one coefficient are that coefficient, which libjpeg's vector implementations shift without saturation.
        [rows[0].map(|coefficient| coefficient << HALFWAY); 8]
    } else {
        pass(&rows, POINT - HALFWAY)
    };
    let columns = transposed(&columns);
    let samples = transposed(&pass(&columns, POINT + HALFWAY + 3));
    let mut out = [0; 64];
    for (i, sample) in out.iter_mut().enumerate() {
        *sample = shifted(samples[i / 8][i % 8]);
    }
    out
}

/// Whether a block has coefficients in its first row alone.
fn rows_below_are_zero(block: &Block) -> bool {
    block[8..].iter().all(|&coefficient| coefficient == 0)
}

/// The sample that all 64 are when only the DC coefficient is not zero.
pub fn flat(dc: i16) -> u8 {
    let halfway = i32::from(dc << HALFWAY);
    shifted(((halfway + (1 << (HALFWAY + 2))) >> (HALFWAY + 3)) as i16)
}

/// The sample for a level around zero.
fn shifted(level: i16) -> u8 {
    (level.clamp(-128, 127) + 128) as u8
}

fn transposed(m: &[[i16; 8]; 8]) -> [[i16; 8]; 8] {
    std::array::from_fn(|i| std::array::from_fn(|j| m[j][i]))
}

/// One-dimensional transforms of eight columns at once: `v[i]` holds the i-th value of each. The result is rounded to
/// `shift` bits less.
fn pass(v: &[[i16; 8]; 8], shift: i32) -> [[i16; 8]; 8] {
    let mut out = [[0i16; 8]; 8];
    for lane in 0..8 {
        let [v0, v1, v2, v3, v4, v5, v6, v7] = std::array::from_fn(|i| v[i][lane]);
        let dot = |a: i16, b: i16, [fa, fb]: [i32; 2]| (i32::from(a) * fa).wrapping_add(i32::from(b) * fb);

        let sum = i32::from(v0.wrapping_add(v4)) << POINT;
        let difference = i32::from(v0.wrapping_sub(v4)) << POINT;
        let (outer, inner) = (dot(v2, v6, factor::OUTER), dot(v2, v6, factor::INNER));
        let even = [
            sum.wrapping_add(outer),
            difference.wrapping_add(inner),
            difference.wrapping_sub(inner),
            sum.wrapping_sub(outer),
        ];

        let (s73, s51) = (v7.wrapping_add(v3), v5.wrapping_add(v1));
        let (z73, z51) = (dot(s73, s51, factor::SUMS_73), dot(s73, s51, factor::SUMS_51));
        let odd = [
            dot(v7, v1, factor::TERM_1).wrapping_add(z51),
            dot(v5, v3, factor::TERM_3).wrapping_add(z73),
            dot(v5, v3, factor::TERM_5).wrapping_add(z51),
            dot(v7, v1, factor::TERM_7).wrapping_add(z73),
        ];

        let round = |x: i32| {
            let x = x.wrapping_add(1 << (shift - 1)) >> shift;
            x.clamp(i16::MIN.into(), i16::MAX.into()) as i16
        };
        for i in 0..4 {
            out[i][lane] = round(even[i].wrapping_add(odd[i]));
            out[7 - i][lane] = round(even[i].wrapping_sub(odd[i]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::cpu::{self, Level};

    /// The method in 64 bits as its authors draw it, one multiplication a constant, for a column or row.
    fn plain(v: [i64; 8], shift: u32) -> [i64; 8] {
        let fixed = |x: f64| (x * 8192.0).round() as i64;
        let z1 = (v[2] + v[6]) * fixed(0.541196100);
        let inner = z1 - v[6] * fixed(1.847759065);
        let outer = z1 + v[2] * fixed(0.765366865);
        let (sum, difference) = ((v[0] + v[4]) << 13, (v[0] - v[4]) << 13);
        let even = [sum + outer, difference + inner, difference - inner, sum - outer];
        let z5 = (v[7] + v[3] + v[5] + v[1]) * fixed(1.175875602);
        let z1 = (v[7] + v[1]) * -fixed(0.899976223);
        let z2 = (v[5] + v[3]) * -fixed(2.562915447);
        let z3 = (v[7] + v[3]) * -fixed(1.961570560) + z5;
        let z4 = (v[5] + v[1]) * -fixed(0.390180644) + z5;
        let odd = [
            v[1] * fixed(1.501321110) + z1 + z4,
            v[3] * fixed(3.072711026) + z2 + z3,
            v[5] * fixed(2.053119869) + z2 + z4,
            v[7] * fixed(0.298631336) + z1 + z3,
        ];
        std::array::from_fn(|i| {
            let x = if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] };
            (x + (1 << (shift - 1))) >> shift
        })
    }

    fn plain_inverse(block: &Block, quantizer: &[u16; 64]) -> [u8; 64] {
        let mut values = [0i64; 64];
        for i in 0..64 {
            values[i] = i64::from(block[i]) * i64::from(quantizer[i]);
        }
        for x in 0..8 {
            let column = plain(std::array::from_fn(|y| values[8 * y + x]), 11);
            (0..8).for_each(|y| values[8 * y + x] = column[y]);
        }
        for y in 0..8 {
            let row = plain(std::array::from_fn(|x| values[8 * y + x]), 18);
            (0..8).for_each(|x| values[8 * y + x] = row[x]);
        }
        values.map(|v| (v + 128).clamp(0, 255) as u8)
    }

    /// Blocks with any number of coefficients that are not zero.
    fn blocks(limit: i16, n: usize) -> impl Strategy<Value = Vec<Block>> {
        let sparse = prop::collection::vec((0usize..64, -limit..=limit), 0..64).prop_map(|coefficients| {
            let mut block = [0; 64];
            coefficients.into_iter().for_each(|(i, value)| block[i] = value);
            block
        });
        let dc = (-limit..=limit).prop_map(|dc| std::array::from_fn(|i| if i == 0 { dc } else { 0 }));
        prop::collection::vec(prop_oneof![3 => sparse, 1 => dc], 1..n)
    }

    fn both(blocks: &[Block], quantizer: &[u16; 64]) -> [Vec<u8>; 2] {
        let stride = 8 * blocks.len() + 3;
        [Level::Scalar, cpu::active()].map(|level| {
            let mut out = vec![0; 8 * stride];
            row_of_blocks(level, blocks, quantizer, &mut out, stride);
            out
        })
    }

    proptest! {
        #[test]
        fn samples_are_those_of_the_plain_method(block in blocks(30, 2), quantizer in prop::array::uniform32(1u16..9)) {
            let quantizer: [u16; 64] = std::array::from_fn(|i| quantizer[i % 32]);
            let want = plain_inverse(&block[0], &quantizer);
            prop_assert_eq!(inverse(&block[0], &quantizer), want);
        }

        #[test]
        fn kernels_agree_on_images(blocks in blocks(1024, 6), step in 1u16..256) {
            let [portable, fast] = both(&blocks, &[step; 64]);
            prop_assert_eq!(portable, fast);
        }

        #[test]
        fn kernels_agree_on_any_coefficients(blocks in blocks(i16::MAX, 6), step in any::<u16>()) {
            let [portable, fast] = both(&blocks, &[step; 64]);
            prop_assert_eq!(portable, fast);
        }
    }

    #[test]
    fn a_dc_coefficient_alone_gives_what_the_whole_method_gives() {
        for dc in i16::MIN..=i16::MAX {
            let mut rows = [[0; 8]; 8];
            rows[0][0] = dc;
            let samples = pass(&transposed(&pass(&rows, 11)), 18);
            // Beyond what an image's coefficients come to, the shortcut wraps where the method saturates.
            if (i16::MIN >> HALFWAY..=i16::MAX >> HALFWAY).contains(&dc) {
                assert!(samples.iter().flatten().all(|&s| shifted(s) == flat(dc)), "dc {dc}");
            }
            let mut block = [0; 64];
            block[0] = dc;
            assert_eq!(inverse(&block, &[1; 64]), [flat(dc); 64], "dc {dc}");
        }
    }
}
