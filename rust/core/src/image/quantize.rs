//! Maps 16-bit samples to 256 levels.

use crate::error::{Error, ImageError, Result};

/// Maps the values `lo..=hi` evenly onto 256 levels: `floor((v - lo) * 256 / (hi - lo + 1))`, saturated at both ends.
/// Of the whole range this is the high byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantizer {
    lo: u16,
    /// `2^40 / (hi - lo + 1)`, rounded up: the division as a multiplication and a shift.
    reciprocal: u64,
}

impl Quantizer {
    /// The levels of the values from `lo` to `hi`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] unless `lo < hi`.
    pub fn new(lo: u16, hi: u16) -> Result<Self> {
        if lo >= hi {
            return Err(Error::Argument(format!(
                "valid_range=({lo}, {hi}) is empty: its first value must be the lower"
            )));
        }
        Ok(Self::of_range(lo, hi))
    }

    /// The high byte.
    pub fn high_byte() -> Self {
        Self::of_range(0, u16::MAX)
    }

    fn of_range(lo: u16, hi: u16) -> Self {
        Quantizer { lo, reciprocal: (1u64 << 40).div_ceil(u64::from(hi - lo) + 1) }
    }

    /// The level of one value.
    #[inline]
    pub fn level(&self, value: u16) -> u8 {
        // Exact: the dividend is below 2^24 and the divisor at most 2^16, so that the reciprocal's excess, below 2^-40 of
        // the divisor, never carries the product over the next multiple.
        let dividend = u64::from(value.saturating_sub(self.lo)) << 8;
        ((dividend * self.reciprocal) >> 40).min(255) as u8
    }
}

impl Quantizer {
    /// The levels of as many values.
    pub fn levels(self, values: &[u16], levels: &mut [u8]) {
        if self == Self::high_byte() {
            return levels.iter_mut().zip(values).for_each(|(level, &value)| *level = (value >> 8) as u8);
        }
        levels.iter_mut().zip(values).for_each(|(level, &value)| *level = self.level(value));
    }
}

/// One in so many samples has to lie in the third quarter for all 16 bits to count as used.
const SAMPLES_PER_WITNESS: usize = 100;

/// Watches 16-bit samples whose range nobody gave, to tell whether they use all 16 bits.
///
/// The whole range is assumed only where the values show it: at least one in a hundred lies in the third quarter,
/// 32769 to 49151. Data of 8 to 15 bits does not reach there, and what such data holds besides (a border of 65535, negative
/// numbers that wrapped around, the 32768 that is the lowest of them) lies beside it. A dark image of the whole range cannot
/// be told from such data, and needs the range as well.
#[derive(Debug, Clone, Copy)]
pub struct ValuesSeen {
    nodata: Option<u16>,
    lo: u16,
    hi: u16,
    count: usize,
    witnesses: usize,
}

impl ValuesSeen {
    /// Starts without samples. Those of `nodata` will be passed over.
    pub fn new(nodata: Option<u16>) -> Self {
        ValuesSeen { nodata, lo: u16::MAX, hi: 0, count: 0, witnesses: 0 }
    }

    /// Takes more samples into account.
    pub fn add(&mut self, samples: &[u16]) {
        // Counters of 32 bits let the compiler vectorize the loop.
        for part in samples.chunks(1 << 16) {
            let (mut lo, mut hi, mut count, mut witnesses) = (self.lo, self.hi, 0u32, 0u32);
            let mut see = |value: u16, valid: bool| {
                lo = lo.min(if valid { value } else { u16::MAX });
                hi = hi.max(if valid { value } else { 0 });
                count += u32::from(valid);
                witnesses += u32::from(valid & (value > 0x8000) & (value < 0xc000));
            };
            match self.nodata {
                None => part.iter().for_each(|&value| see(value, true)),
                Some(nodata) => part.iter().for_each(|&value| see(value, value != nodata)),
            }
            (self.lo, self.hi) = (lo, hi);
            self.count += count as usize;
            self.witnesses += witnesses as usize;
        }
    }

    /// Fails unless the samples use all 16 bits.
    ///
    /// # Errors
    ///
    /// [`ImageError::ValueRange`].
    pub fn check(&self) -> Result<(), ImageError> {
        if self.witnesses * SAMPLES_PER_WITNESS >= self.count {
            return Ok(());
        }
        Err(ImageError::ValueRange { lo: self.lo, hi: self.hi })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition.
    fn level_by_division(value: u16, lo: u16, hi: u16) -> u8 {
        let (value, lo, hi) = (i64::from(value), i64::from(lo), i64::from(hi));
        ((value - lo) * 256).div_euclid(hi - lo + 1).clamp(0, 255) as u8
    }

    fn assert_levels(lo: u16, hi: u16) {
        let quantizer = Quantizer::new(lo, hi).unwrap();
        let values: Vec<u16> = (0..=u16::MAX).collect();
        let mut levels = vec![0; values.len()];
        quantizer.levels(&values, &mut levels);
        for (value, level) in values.into_iter().zip(levels) {
            assert_eq!(quantizer.level(value), level_by_division(value, lo, hi), "{value} in {lo}..={hi}");
            assert_eq!(quantizer.level(value), level, "{value} in {lo}..={hi}");
        }
    }

    #[test]
    fn every_value_has_the_level_of_the_division() {
        for (lo, hi) in [(0, 65535), (0, 1), (65534, 65535), (0, 255), (0, 10_000), (1, 10_000), (0, 4095), (3, 65535)]
        {
            assert_levels(lo, hi);
        }
    }

    #[test]
    fn the_whole_range_is_the_high_byte() {
        assert!((0..=u16::MAX).all(|v| Quantizer::high_byte().level(v) == (v >> 8) as u8));
    }

    #[test]
    fn an_empty_range_is_refused() {
        assert!(Quantizer::new(5, 5).is_err());
        assert!(Quantizer::new(6, 5).is_err());
    }

    fn check(values: impl IntoIterator<Item = u16>, nodata: Option<u16>) -> Result<(), ImageError> {
        let mut seen = ValuesSeen::new(nodata);
        seen.add(&values.into_iter().collect::<Vec<_>>());
        seen.check()
    }

    #[test]
    fn only_values_that_use_all_bits_need_no_range() {
        assert_eq!(check(0..=u16::MAX, None), Ok(()));
        assert_eq!(check([], None), Ok(()));
        assert_eq!(check([7, 7], Some(7)), Ok(()));
        for bits in 8..16 {
            let hi = (1 << bits) - 1;
            assert_eq!(check(0..=hi, None), Err(ImageError::ValueRange { lo: 0, hi }));
            // A border, and int16 values that wrapped around.
            let border = std::iter::repeat_n(u16::MAX, 1 << bits);
            assert_eq!(
                check((5..=hi).chain(border.clone()), None),
                Err(ImageError::ValueRange { lo: 5, hi: u16::MAX })
            );
            assert_eq!(check((5..=hi).chain(border), Some(u16::MAX)), Err(ImageError::ValueRange { lo: 5, hi }));
            let negative = (-900..900).map(|value: i16| value as u16).chain([i16::MIN as u16; 900]);
            assert!(check((0..=hi).chain(negative), None).is_err());
        }
        // One in a hundred is enough.
        assert!(check((0..99).chain([40_000]), None).is_ok());
        assert!(check((0..100).chain([40_000]), None).is_err());
        assert!(check((0..99).chain([40_000]), Some(40_000)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_range_has_the_levels_of_the_division(a: u16, b: u16) {
            prop_assume!(a != b);
            assert_levels(a.min(b), a.max(b));
        }
    }
}
