//! 16-bit samples to 256 levels.

use crate::error::{Error, Result};

/// Maps the values `lo..=hi` evenly onto 256 levels: `floor((v - lo) * 256 / (hi - lo + 1))`, saturated at both ends.
/// Of the whole range this is the high byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiser {
    lo: u16,
    /// `2^40 / (hi - lo + 1)`, rounded up: the division as a multiplication and a shift.
    reciprocal: u64,
}

impl Quantiser {
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
        Quantiser { lo, reciprocal: (1u64 << 40).div_ceil(u64::from(hi - lo) + 1) }
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

impl Quantiser {
    /// The levels of as many values.
    pub fn levels(self, values: &[u16], levels: &mut [u8]) {
        if self == Self::high_byte() {
            return levels.iter_mut().zip(values).for_each(|(level, &value)| *level = (value >> 8) as u8);
        }
        levels.iter_mut().zip(values).for_each(|(level, &value)| *level = self.level(value));
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
        let quantiser = Quantiser::new(lo, hi).unwrap();
        let values: Vec<u16> = (0..=u16::MAX).collect();
        let mut levels = vec![0; values.len()];
        quantiser.levels(&values, &mut levels);
        for (value, level) in values.into_iter().zip(levels) {
            assert_eq!(quantiser.level(value), level_by_division(value, lo, hi), "{value} in {lo}..={hi}");
            assert_eq!(quantiser.level(value), level, "{value} in {lo}..={hi}");
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
        assert!((0..=u16::MAX).all(|v| Quantiser::high_byte().level(v) == (v >> 8) as u8));
    }

    #[test]
    fn an_empty_range_is_refused() {
        assert!(Quantiser::new(5, 5).is_err());
        assert!(Quantiser::new(6, 5).is_err());
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
