//! Samples to gray levels.

use super::Result;
use crate::error::{Error, ImageError};

/// How the bands of a pixel become one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gray {
    /// `(19595 R + 38470 G + 7471 B + 32768) >> 16`: ITU-R BT.601 as Pillow's mode "L" computes it.
    Bt601,
    /// The mean of any number of bands, rounded half up.
    Mean,
    /// A JPEG's own Y plane; of everything else [`Gray::Bt601`].
    Luma,
}

impl Gray {
    /// The rule of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] when there is none.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        match name {
            "bt601" => Ok(Gray::Bt601),
            "mean" => Ok(Gray::Mean),
            "luma" => Ok(Gray::Luma),
            _ => Err(Error::Argument(format!("gray={name:?} is unknown: it is \"bt601\", \"mean\" or \"luma\""))),
        }
    }

    /// Fails when this rule does not reduce that many bands.
    pub fn check(self, bands: usize) -> Result<()> {
        match self {
            Gray::Mean => Ok(()),
            Gray::Bt601 | Gray::Luma if bands == 1 || bands == 3 => Ok(()),
            Gray::Bt601 | Gray::Luma => Err(ImageError::Bands(format!(
                "{bands} bands were chosen, but BT.601 weighs exactly three (or takes one as it is); choose three, or gray=\"mean\""
            ))),
        }
    }
}

/// Writes the level of every pixel of `bands` interleaved samples to `levels`.
pub(super) fn levels(gray: Gray, bands: usize, samples: &[u8], levels: &mut [u8]) {
    match gray {
        _ if bands == 1 => levels.copy_from_slice(samples),
        Gray::Mean => mean(bands, samples, levels),
        Gray::Bt601 | Gray::Luma => bt601(samples, levels),
    }
}

fn mean(bands: usize, samples: &[u8], levels: &mut [u8]) {
    // A choice of bands is far shorter than 2^23: the sum fits.
    let count = bands as u32;
    for (pixel, level) in samples.chunks_exact(bands).zip(levels) {
        let sum: u32 = pixel.iter().map(|&sample| u32::from(sample)).sum();
        *level = ((2 * sum + count) / (2 * count)) as u8;
    }
}

const RED: u32 = 19595;
const GREEN: u32 = 38470;
const BLUE: u32 = 7471;
const HALF: u32 = 1 << 15;

fn bt601(rgb: &[u8], levels: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found to be there.
        return unsafe { avx2::bt601(rgb, levels) };
    }
    bt601_scalar(rgb, levels);
}

fn bt601_scalar(rgb: &[u8], levels: &mut [u8]) {
    for (pixel, level) in rgb.chunks_exact(3).zip(levels) {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        *level = ((RED * r + GREEN * g + BLUE * b + HALF) >> 16) as u8;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLUE, GREEN, HALF, RED};

    /// Pixels of one step.
    const STEP: usize = 32;
    /// A step's last load reads 16 bytes for the 12 that it uses.
    const OVERHANG: usize = 4;

    /// [`super::bt601_scalar`], 32 pixels at a time.
    #[target_feature(enable = "avx2")]
    pub fn bt601(rgb: &[u8], levels: &mut [u8]) {
        let steps = levels.len().min(rgb.len().saturating_sub(OVERHANG) / 3) / STEP;
        for step in 0..steps {
            let input = &rgb[step * STEP * 3..][..STEP * 3 + OVERHANG];
            let sums = [0, 24, 48, 72].map(|at| eight_levels(&input[at..][..28]));
            let words = [_mm256_packus_epi32(sums[0], sums[1]), _mm256_packus_epi32(sums[2], sums[3])];
            // The packs work within halves: groups of four pixels come out as 0 2 4 6 | 1 3 5 7.
            let bytes = _mm256_packus_epi16(words[0], words[1]);
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            let output = &mut levels[step * STEP..][..STEP];
            // SAFETY: `output` is 32 bytes long.
            unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast(), bytes) };
        }
        super::bt601_scalar(&rgb[steps * STEP * 3..], &mut levels[steps * STEP..]);
    }

    /// The levels of the eight pixels in the first 24 of 28 bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn eight_levels(rgb: &[u8]) -> __m256i {
        assert!(rgb.len() == 28);
        // SAFETY: both loads of 16 bytes, from 0 and from 12, end within the 28.
        let (low, high) =
            unsafe { (_mm_loadu_si128(rgb.as_ptr().cast()), _mm_loadu_si128(rgb.as_ptr().add(12).cast())) };
        let pixels = _mm256_set_m128i(high, low);
        // Words of each pixel: R, G and G, B. G's weight is above i16::MAX: each pair carries half of it.
        let red_green = _mm_setr_epi8(0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1);
        let green_blue = _mm_setr_epi8(1, -1, 2, -1, 4, -1, 5, -1, 7, -1, 8, -1, 10, -1, 11, -1);
        let pair = |shuffle, first: u32, second: u32| {
            let words = _mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(shuffle));
            _mm256_madd_epi16(words, _mm256_set1_epi32((second << 16 | first) as i32))
        };
        let sum = _mm256_add_epi32(pair(red_green, RED, GREEN / 2), pair(green_blue, GREEN / 2, BLUE));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(sum, _mm256_set1_epi32(HALF as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(rgb: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut fast, mut scalar) = (vec![0; rgb.len() / 3], vec![0; rgb.len() / 3]);
        bt601(rgb, &mut fast);
        bt601_scalar(rgb, &mut scalar);
        (fast, scalar)
    }

    #[test]
    fn every_colour_has_the_level_of_the_scalar_kernel() {
        for r in 0..=255u8 {
            let plane: Vec<u8> = (0..=255).flat_map(|g| (0..=255).flat_map(move |b| [r, g, b])).collect();
            let (fast, scalar) = both(&plane);
            assert!(fast == scalar, "red {r}");
        }
    }

    #[test]
    fn means_round_half_up() {
        let mut level = [0; 3];
        levels(Gray::Mean, 2, &[0, 1, 1, 1, 255, 255], &mut level);
        assert_eq!(level, [1, 1, 255]);
        levels(Gray::Mean, 3, &[0, 0, 1, 0, 1, 1, 255, 255, 254], &mut level);
        assert_eq!(level, [0, 1, 255]);
    }

    #[test]
    fn weights_take_three_bands_or_one() {
        assert!(Gray::Bt601.check(3).is_ok() && Gray::Luma.check(1).is_ok() && Gray::Mean.check(4).is_ok());
        assert!(Gray::Bt601.check(4).is_err() && Gray::Luma.check(2).is_err());
    }

    proptest! {
        #[test]
        fn any_length_has_the_levels_of_the_scalar_kernel(rgb in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (fast, scalar) = both(&rgb);
            prop_assert_eq!(fast, scalar);
        }
    }
}
