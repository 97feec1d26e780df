//! Maps samples of more than 8 bits to 256 levels.

use crate::error::{Error, ImageError, Result};

/// The lowest and the highest value that samples can take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValidRange {
    lo: f64,
    hi: f64,
}

impl ValidRange {
    /// From `lo` to `hi`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] unless both are numbers and `lo < hi`.
    pub fn new(lo: f64, hi: f64) -> Result<Self> {
        if !(lo.is_finite() && hi.is_finite()) {
            return Err(Error::Argument(format!("valid_range=({lo}, {hi}) is not a pair of numbers")));
        }
        if lo >= hi {
            return Err(Error::Argument(format!(
                "valid_range=({lo}, {hi}) is empty: its first value must be the lower"
            )));
        }
        Ok(ValidRange { lo, hi })
    }

    /// Fails for samples of `T` that the range cannot be meant for: of whole numbers, with bounds that are none.
    pub fn check<T: Wide>(self) -> Result<(), ImageError> {
        let ValidRange { lo, hi } = self;
        if T::WHOLE && (lo.fract() != 0.0 || hi.fract() != 0.0) {
            let dtype = T::DTYPE;
            return Err(ImageError::ValueRange(format!(
                "valid_range=({lo}, {hi}) is for floating-point values, but these are {dtype}: give whole numbers"
            )));
        }
        Ok(())
    }
}

/// Samples of more than 8 bits.
pub trait Wide: Copy + PartialOrd + Default + Send + Sync {
    /// The name that NumPy gives the type.
    const DTYPE: &'static str;
    /// Whether all values are whole numbers.
    const WHOLE: bool;
    /// The lowest and the highest value.
    const ENDS: (Self, Self);
    /// The value as a number.
    fn number(self) -> f64;
    /// The number as a value, if it is one.
    fn from_number(number: f64) -> Option<Self>;
    /// The value's place among those of 16-bit samples, from 0 on.
    fn place(self) -> u16;

    /// Whether the value is one of those that only data of the whole range takes.
    fn is_witness(self) -> bool {
        false
    }
}

impl Wide for u16 {
    const DTYPE: &'static str = "uint16";
    const WHOLE: bool = true;
    const ENDS: (u16, u16) = (0, u16::MAX);

    fn number(self) -> f64 {
        self.into()
    }

    fn from_number(number: f64) -> Option<u16> {
        (f64::from(number as u16) == number).then_some(number as u16)
    }

    fn place(self) -> u16 {
        self
    }

    fn is_witness(self) -> bool {
        (self > 0x8000) & (self < 0xc000)
    }
}

impl Wide for i16 {
    const DTYPE: &'static str = "int16";
    const WHOLE: bool = true;
    const ENDS: (i16, i16) = (i16::MIN, i16::MAX);

    fn number(self) -> f64 {
        self.into()
    }

    fn from_number(number: f64) -> Option<i16> {
        (f64::from(number as i16) == number).then_some(number as i16)
    }

    fn place(self) -> u16 {
        self as u16 ^ 0x8000
    }
}

impl Wide for f32 {
    const DTYPE: &'static str = "float32";
    const WHOLE: bool = false;
    const ENDS: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    fn number(self) -> f64 {
        self.into()
    }

    fn from_number(number: f64) -> Option<f32> {
        Some(number as f32)
    }

    fn place(self) -> u16 {
        0
    }
}

impl Wide for f64 {
    const DTYPE: &'static str = "float64";
    const WHOLE: bool = false;
    const ENDS: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

    fn number(self) -> f64 {
        self
    }

    fn from_number(number: f64) -> Option<f64> {
        Some(number)
    }

    fn place(self) -> u16 {
        0
    }
}

/// Which samples hold no value: those of nodata, and NaN.
#[derive(Debug, Clone, Copy)]
pub struct Missing<T> {
    /// The value of nodata.
    pub nodata: Option<T>,
}

impl<T: Wide> Missing<T> {
    /// Those of `nodata`, if samples can be that.
    pub fn new(nodata: Option<f64>) -> Self {
        Missing { nodata: nodata.and_then(T::from_number) }
    }

    /// Whether the sample is one.
    #[inline]
    #[allow(clippy::eq_op, reason = "NaN is what does not equal itself")]
    pub fn has(&self, sample: T) -> bool {
        // NaN as nodata is covered by the first.
        (sample != sample) | self.nodata.is_some_and(|nodata| sample == nodata)
    }

    /// Whether any sample can be one.
    pub fn any(&self) -> bool {
        self.nodata.is_some() || !T::WHOLE
    }
}

/// Maps the values of a range evenly onto 256 levels, saturated at both ends: whole numbers from `lo` to `hi` by
/// `floor((v - lo) * 256 / (hi - lo + 1))`, others by `floor((v - lo) * 256 / (hi - lo))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantizer {
    /// By the place of a 16-bit value.
    Sixteen(Sixteen),
    /// By the number itself.
    Real {
        /// The lowest value.
        lo: f64,
        /// The width of the range.
        extent: f64,
        /// The level of NaN.
        nan: u8,
    },
}

impl Quantizer {
    /// That of `range`, or of all values of 16 bits. NaN gets the level of nodata.
    pub fn new<T: Wide>(range: Option<ValidRange>, missing: Missing<T>) -> Self {
        let Some(ValidRange { lo, hi }) = range else { return Self::Sixteen(Sixteen::high_byte()) };
        match (T::from_number(lo), T::from_number(hi)) {
            (Some(lo), Some(hi)) if T::WHOLE => Self::Sixteen(Sixteen::of_range(lo.place(), hi.place())),
            _ => {
                let extent = if T::WHOLE { hi - lo + 1.0 } else { hi - lo };
                let nan = missing.nodata.map_or(0, |nodata| Self::Real { lo, extent, nan: 0 }.level(nodata));
                Self::Real { lo, extent, nan }
            }
        }
    }

    /// The level of one value.
    #[inline]
    pub fn level<T: Wide>(&self, value: T) -> u8 {
        match self {
            Self::Sixteen(sixteen) => sixteen.level(value.place()),
            &Self::Real { lo, extent, nan } => real_level(value.number(), lo, extent, nan),
        }
    }

    /// The levels of as many values.
    pub fn levels<T: Wide>(&self, values: &[T], levels: &mut [u8]) {
        let pairs = levels.iter_mut().zip(values);
        match self {
            Self::Sixteen(sixteen) if *sixteen == Sixteen::high_byte() => {
                pairs.for_each(|(level, value)| *level = (value.place() >> 8) as u8);
            }
            Self::Sixteen(sixteen) => pairs.for_each(|(level, value)| *level = sixteen.level(value.place())),
            &Self::Real { lo, extent, nan } => {
                pairs.for_each(|(level, value)| *level = real_level(value.number(), lo, extent, nan));
            }
        }
    }
}

/// Exact for whole numbers: the quotient of two that are no multiples lies further from a multiple than it is rounded.
#[inline(always)]
fn real_level(value: f64, lo: f64, extent: f64, nan: u8) -> u8 {
    // The conversion cuts off what is behind the point, and saturates.
    let level = ((value - lo) * 256.0 / extent) as u8;
    if value.is_nan() { nan } else { level }
}

/// Maps the places `lo..=hi` evenly onto 256 levels. Of the whole range this is the high byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sixteen {
    lo: u16,
    /// `2^40 / (hi - lo + 1)`, rounded up: the division as a multiplication and a shift.
    reciprocal: u64,
}

impl Sixteen {
    fn high_byte() -> Self {
        Self::of_range(0, u16::MAX)
    }

    fn of_range(lo: u16, hi: u16) -> Self {
        Sixteen { lo, reciprocal: (1u64 << 40).div_ceil(u64::from(hi - lo) + 1) }
    }

    /// The level of one value.
    #[inline]
    fn level(&self, value: u16) -> u8 {
        // Exact: the dividend is below 2^24 and the divisor at most 2^16, so that the reciprocal's excess, below 2^-40 of
        // the divisor, never carries the product over the next multiple.
        let dividend = u64::from(value.saturating_sub(self.lo)) << 8;
        ((dividend * self.reciprocal) >> 40).min(255) as u8
    }
}

/// One in so many samples has to lie in the third quarter for all 16 bits to count as used.
const SAMPLES_PER_WITNESS: usize = 100;

/// Watches samples whose range nobody gave, to tell whether they use all 16 bits.
///
/// The whole range is assumed only of unsigned values that show it: at least one in a hundred lies in the third quarter,
/// 32769 to 49151. Data of 8 to 15 bits does not reach there, and what such data holds besides (a border of 65535, negative
/// numbers that wrapped around, the 32768 that is the lowest of them) lies beside it. A dark image of the whole range cannot
/// be told from such data, and needs the range as well, as do signed and floating-point values of any kind.
#[derive(Debug, Clone, Copy)]
pub struct ValuesSeen<T> {
    missing: Missing<T>,
    lo: T,
    hi: T,
    count: usize,
    witnesses: usize,
}

impl<T: Wide> ValuesSeen<T> {
    /// Starts without samples. Those that are `missing` will be passed over.
    pub fn new(missing: Missing<T>) -> Self {
        ValuesSeen { missing, lo: T::ENDS.1, hi: T::ENDS.0, count: 0, witnesses: 0 }
    }

    /// Takes more samples into account.
    pub fn add(&mut self, samples: &[T]) {
        // Counters of 32 bits let the compiler vectorize the loop.
        for part in samples.chunks(1 << 16) {
            let (mut lo, mut hi, mut count, mut witnesses) = (self.lo, self.hi, 0u32, 0u32);
            let mut see = |value: T, valid: bool| {
                lo = if valid & (value < lo) { value } else { lo };
                hi = if valid & (value > hi) { value } else { hi };
                count += u32::from(valid);
                witnesses += u32::from(valid & value.is_witness());
            };
            if self.missing.any() {
                part.iter().for_each(|&value| see(value, !self.missing.has(value)));
            } else {
                part.iter().for_each(|&value| see(value, true));
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
        let (lo, hi, dtype) = (self.lo.number(), self.hi.number(), T::DTYPE);
        // A range has two ends.
        let end = if lo < hi { hi } else { lo + 1.0 };
        let dark = if T::DTYPE == u16::DTYPE { ", or 0 and 65535 for dark images that do use 16 bits" } else { "" };
        Err(ImageError::ValueRange(format!(
            "the {dtype} values seen, {lo} to {hi}, do not tell the range that they can take; give its ends, for example \
             valid_range=({lo}, {end}) or --valid-range {lo},{end}{dark}"
        )))
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

    fn quantizer<T: Wide>(lo: f64, hi: f64) -> Quantizer {
        Quantizer::new(Some(ValidRange::new(lo, hi).unwrap()), Missing::<T> { nodata: None })
    }

    fn assert_levels(lo: u16, hi: u16) {
        let quantizer = quantizer::<u16>(lo.into(), hi.into());
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
        assert!((0..=u16::MAX).all(|v| Sixteen::high_byte().level(v) == (v >> 8) as u8));
    }

    #[test]
    fn an_empty_range_is_refused() {
        for (lo, hi) in [(5.0, 5.0), (6.0, 5.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!(ValidRange::new(lo, hi).is_err());
        }
    }

    #[test]
    fn signed_values_and_wide_ranges_have_the_levels_of_the_division() {
        let values: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let mut levels = vec![0; values.len()];
        for (lo, hi) in [(-1000, 10_000), (i64::from(i16::MIN), i64::from(i16::MAX)), (-5, 70_000), (-70_000, 3)] {
            quantizer::<i16>(lo as f64, hi as f64).levels(&values, &mut levels);
            for (&value, &level) in values.iter().zip(&levels) {
                let want = ((i64::from(value) - lo) * 256).div_euclid(hi - lo + 1).clamp(0, 255);
                assert_eq!(i64::from(level), want, "{value} in {lo}..={hi}");
            }
        }
        assert!((0..=u16::MAX).all(|v| {
            let want = ((i64::from(v) + 5) * 256).div_euclid(70_006).clamp(0, 255);
            i64::from(quantizer::<u16>(-5.0, 70_000.0).level(v)) == want
        }));
    }

    #[test]
    fn floating_point_values_saturate_and_nan_is_as_nodata() {
        let quarters = quantizer::<f32>(-1.0, 1.0);
        let values = [f32::NEG_INFINITY, -1.0, -0.5, 0.0, 0.999, 1.0, 7.0, f32::NAN];
        assert_eq!(values.map(|value| quarters.level(value)), [0, 0, 64, 128, 255, 255, 255, 0]);
        let missing = Missing::<f64>::new(Some(0.5));
        let quantizer = Quantizer::new(ValidRange::new(0.0, 1.0).ok(), missing);
        assert_eq!((quantizer.level(0.5), quantizer.level(f64::NAN)), (128, 128));
        assert!(missing.has(f64::NAN) && missing.has(0.5) && !missing.has(0.0));
    }

    #[test]
    fn whole_numbers_take_ranges_of_whole_numbers() {
        let range = ValidRange::new(0.0, 0.3).unwrap();
        assert!(range.check::<f32>().is_ok() && range.check::<f64>().is_ok());
        assert!(range.check::<u16>().is_err() && range.check::<i16>().is_err());
        assert!(ValidRange::new(-3.0, 9.0).unwrap().check::<u16>().is_ok());
    }

    fn check<T: Wide>(values: impl IntoIterator<Item = T>, nodata: Option<T>) -> Result<(), ImageError> {
        let mut seen = ValuesSeen::new(Missing { nodata });
        seen.add(&values.into_iter().collect::<Vec<_>>());
        seen.check()
    }

    /// Whether the error names these values.
    fn names(outcome: Result<(), ImageError>, lo: f64, hi: f64) -> bool {
        let message = outcome.unwrap_err().to_string();
        message.contains(&format!(" {lo} to {hi},")) && message.contains(&format!("--valid-range {lo},{hi}"))
    }

    #[test]
    fn only_values_that_use_all_bits_need_no_range() {
        assert_eq!(check(0..=u16::MAX, None), Ok(()));
        assert_eq!(check::<u16>([], None), Ok(()));
        assert_eq!(check([7u16, 7], Some(7)), Ok(()));
        for bits in 8..16 {
            let hi = (1u16 << bits) - 1;
            assert!(names(check(0..=hi, None), 0.0, hi.into()));
            // A border, and int16 values that wrapped around.
            let border = std::iter::repeat_n(u16::MAX, 1 << bits);
            assert!(names(check((5..=hi).chain(border.clone()), None), 5.0, 65535.0));
            assert!(names(check((5..=hi).chain(border), Some(u16::MAX)), 5.0, hi.into()));
            let negative = (-900..900).map(|value: i16| value as u16).chain([i16::MIN as u16; 900]);
            assert!(check((0..=hi).chain(negative), None).is_err());
        }
        // One in a hundred is enough.
        assert!(check((0..99).chain([40_000u16]), None).is_ok());
        assert!(check((0..100).chain([40_000u16]), None).is_err());
        assert!(check((0..99).chain([40_000u16]), Some(40_000)).is_err());
    }

    #[test]
    fn signed_and_floating_point_values_always_need_a_range() {
        assert!(names(check(i16::MIN..=i16::MAX, None), -32768.0, 32767.0));
        assert!(names(check([0.25f32, f32::NAN, -9999.0, 0.5], Some(-9999.0)), 0.25, 0.5));
        assert!(names(check([-1.5f64, 3.0], None), -1.5, 3.0));
        assert_eq!(check([f32::NAN], None), Ok(()));
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
