//! Samples to gray levels.

use super::Result;
use crate::error::{Error, ImageError};
use crate::runtime::cpu::{self, dispatch};

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
        Gray::Bt601 | Gray::Luma => bt601(cpu::active(), samples, levels),
    }
}

/// The same of planes, one behind the other, each as long as `levels`.
pub(super) fn levels_of_planes(gray: Gray, planes: &[u8], levels: &mut [u8]) {
    let pixels = levels.len();
    match gray {
        Gray::Mean => mean_of_planes(planes, levels),
        Gray::Bt601 | Gray::Luma => {
            let [r, g, b] = [0, 1, 2].map(|band| &planes[band * pixels..][..pixels]);
            for (((level, &r), &g), &b) in levels.iter_mut().zip(r).zip(g).zip(b) {
                *level = weighted([r, g, b]);
            }
        }
    }
}

fn mean_of_planes(planes: &[u8], levels: &mut [u8]) {
    let pixels = levels.len();
    let count = planes.len().checked_div(pixels).unwrap_or(1) as u32;
    // Few enough at a time that their sums stay in the first cache.
    let mut sums = [0u32; 512];
    for (part, levels) in levels.chunks_mut(sums.len()).enumerate() {
        let (start, sums) = (part * 512, &mut sums[..levels.len()]);
        sums.fill(0);
        for plane in planes.chunks_exact(pixels) {
            let plane = &plane[start..][..sums.len()];
            sums.iter_mut().zip(plane).for_each(|(sum, &sample)| *sum += u32::from(sample));
        }
        levels.iter_mut().zip(sums).for_each(|(level, sum)| *level = rounded(*sum, count));
    }
}

fn mean(bands: usize, samples: &[u8], levels: &mut [u8]) {
    // A choice of bands is far shorter than 2^23: the sum fits.
    let count = bands as u32;
    for (pixel, level) in samples.chunks_exact(bands).zip(levels) {
        *level = rounded(pixel.iter().map(|&sample| u32::from(sample)).sum(), count);
    }
}

/// `sum / count`, rounded half up.
#[inline]
fn rounded(sum: u32, count: u32) -> u8 {
    match count {
        // The usual numbers of bands as constants: the division becomes a multiplication.
        2 => ((2 * sum + 2) / 4) as u8,
        3 => ((2 * sum + 3) / 6) as u8,
        4 => ((2 * sum + 4) / 8) as u8,
        _ => ((2 * sum + count) / (2 * count)) as u8,
    }
}

// The weights of BT.601 with 16 bits behind the point. Their sum is exactly 1.
pub(super) const RED: u32 = 19595;
const GREEN: u32 = 38470;
pub(super) const BLUE: u32 = 7471;
pub(super) const HALF: u32 = 1 << 15;

dispatch! {
    /// The levels of interleaved red, green and blue by BT.601.
    fn bt601(level: Level, rgb: &[u8], levels: &mut [u8]) {
        Avx512Icl => avx512::bt601(rgb, levels),
        Avx2 => avx2::bt601(rgb, levels),
        Scalar => bt601_scalar(rgb, levels),
    }
}

fn bt601_scalar(rgb: &[u8], levels: &mut [u8]) {
    for (&pixel, level) in rgb.as_chunks().0.iter().zip(levels) {
        *level = weighted(pixel);
    }
}

/// The level of one pixel by BT.601.
#[inline(always)]
pub(super) fn weighted(pixel: [u8; 3]) -> u8 {
    let [r, g, b] = pixel.map(u32::from);
    ((RED * r + GREEN * g + BLUE * b + HALF) >> 16) as u8
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

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{BLUE, HALF, RED};

    /// Pixels of one step.
    const STEP: usize = 64;
    /// How far ahead of its use memory is asked for, in bytes: while the caller counts one block of levels, the samples of
    /// the next one arrive.
    const AHEAD: usize = 3 * 4096;
    /// A step's last load reads 64 bytes for the 48 that it uses.
    const OVERHANG: usize = 16;

    /// Byte `i` is `from[i % 4]` of the `i / 4`-th pixel.
    const fn places(from: [u8; 4]) -> [u8; 64] {
        let (mut places, mut i) = ([0; 64], 0);
        while i < 64 {
            places[i] = (3 * (i / 4)) as u8 + from[i % 4];
            i += 1;
        }
        places
    }

    static RED_BLUE: [u8; 64] = places([0, 0, 2, 0]);
    static GREENS: [u8; 64] = places([1; 4]);

    /// The third byte of each of 32 sums in two registers.
    static THIRDS: [u8; 64] = {
        let (mut places, mut i) = ([0; 64], 0);
        while i < 64 {
            places[i] = (4 * (i % 32) + 2) as u8;
            i += 1;
        }
        places
    };

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the reference guarantees 64 readable bytes; the instruction needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// [`super::bt601_scalar`], 64 pixels at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
    pub fn bt601(rgb: &[u8], levels: &mut [u8]) {
        let steps = levels.len().min(rgb.len().saturating_sub(OVERHANG) / 3) / STEP;
        let thirds = load(&THIRDS);
        for step in 0..steps {
            let input = &rgb[step * STEP * 3..][..STEP * 3 + OVERHANG];
            let sums = [0, 48, 96, 144].map(|at| sixteen_sums(&input[at..][..64]));
            for line in 0..3 {
                _mm_prefetch::<_MM_HINT_T0>(input.as_ptr().wrapping_add(AHEAD + 64 * line).cast());
            }
            let low = _mm512_permutex2var_epi8(sums[0], thirds, sums[1]);
            let high = _mm512_permutex2var_epi8(sums[2], thirds, sums[3]);
            let output = &mut levels[step * STEP..][..STEP];
            // SAFETY: `output` is 64 bytes long.
            unsafe {
                _mm512_storeu_si512(output.as_mut_ptr().cast(), _mm512_shuffle_i64x2::<0b01_00_01_00>(low, high))
            };
        }
        super::bt601_scalar(&rgb[steps * STEP * 3..], &mut levels[steps * STEP..]);
    }

    /// The weighted sums of the 16 pixels in the first 48 of 64 bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
    #[inline]
    fn sixteen_sums(rgb: &[u8]) -> __m512i {
        assert!(rgb.len() == 64);
        // SAFETY: `rgb` is 64 bytes long.
        let pixels = unsafe { _mm512_loadu_si512(rgb.as_ptr().cast()) };
        // As words: red and blue, green and green.
        let even = 0x5555_5555_5555_5555;
        let red_blue = _mm512_maskz_permutexvar_epi8(even, load(&RED_BLUE), pixels);
        let green = _mm512_maskz_permutexvar_epi8(even, load(&GREENS), pixels);
        // The three weights are 1 in sum: what red and blue are more than green is weighed.
        let weights = _mm512_set1_epi32((RED | BLUE << 16) as i32);
        let whole = _mm512_add_epi32(_mm512_slli_epi32::<16>(green), _mm512_set1_epi32(HALF as i32));
        _mm512_dpwssd_epi32(whole, _mm512_sub_epi16(red_blue, green), weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cpu::Level;
    use proptest::prelude::*;

    /// Whether all kernels that this CPU can run give the levels of the scalar one.
    fn agree(rgb: &[u8]) -> bool {
        let levels = |kernel: &dyn Fn(&[u8], &mut [u8])| {
            let mut levels = vec![0; rgb.len() / 3];
            kernel(rgb, &mut levels);
            levels
        };
        let scalar = levels(&bt601_scalar);
        Level::present().all(|level| levels(&|rgb, levels| bt601(level, rgb, levels)) == scalar)
    }

    #[test]
    fn every_color_has_the_level_of_the_scalar_kernel() {
        for r in 0..=255u8 {
            let plane: Vec<u8> = (0..=255).flat_map(|g| (0..=255).flat_map(move |b| [r, g, b])).collect();
            assert!(agree(&plane), "red {r}");
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
            prop_assert!(agree(&rgb));
        }
    }
}
