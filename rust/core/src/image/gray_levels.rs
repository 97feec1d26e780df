//! Reduces an image's samples to gray levels: bands are chosen, 16 bits become 8, nodata is left out, colors become gray.

use super::gray::{self, Gray};
use super::memory;
use super::quantize::{Missing, Quantizer, ValidRange, ValuesSeen, Wide};
use super::{ImageRef, Output, Result, Rgb, SamplesRef, bands};
use crate::error::{Error, ImageError};

/// Pixels reduced at a time: their samples and levels stay in the first cache.
const BLOCK: usize = 4096;

/// What is known of an image before its gray levels.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The level of the pixels that are taken back, if any may be.
    pub missing: Option<u8>,
    /// The quality that a JPEG was saved with, 1 to 100.
    pub jpeg_quality: Option<u8>,
}

/// Takes an image's gray levels.
pub trait LevelSink {
    /// Called once, before the first levels.
    fn start(&mut self, _header: Header) {}

    /// Takes the next levels.
    fn add(&mut self, levels: &[u8]);

    /// Takes the next `number` levels from `write`, which is called once and sets every one.
    fn add_with(&mut self, number: usize, write: impl FnOnce(&mut [u8]));

    /// Takes back `count` of the levels taken so far, all of them `level`, because their pixels are nodata.
    fn remove(&mut self, level: u8, count: usize);
}

/// How the pixels of an image become gray levels.
#[derive(Debug, Clone)]
pub struct GrayOptions {
    gray: Gray,
    bands: Option<Vec<usize>>,
    nodata: Option<f64>,
    /// The range of samples of more than 8 bits. `None`: the whole range of 16 bits, of images that use it.
    range: Option<ValidRange>,
}

impl GrayOptions {
    /// Reduces `bands` by the rule of `gray`; by default the first three bands, or the only one. A pixel whose chosen bands
    /// all hold `nodata`, as stored, or NaN, is left out. The values of `valid_range` span the 256 levels of samples of more
    /// than 8 bits; samples of 8 bits are levels already.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] for an empty range, no bands at all, and a number of bands that `gray` does not take.
    pub fn new(
        gray: Gray,
        bands: Option<Vec<usize>>,
        nodata: Option<f64>,
        valid_range: Option<(f64, f64)>,
    ) -> Result<Self, Error> {
        if let Some(bands) = &bands {
            if bands.is_empty() {
                return Err(Error::Argument("bands=() chooses nothing; leave it out for the default".into()));
            }
            gray.check(bands.len()).map_err(|cause| Error::Argument(cause.to_string()))?;
        }
        let range = valid_range.map(|(lo, hi)| ValidRange::new(lo, hi)).transpose()?;
        Ok(GrayOptions { gray, bands, nodata, range })
    }

    /// The output that a JPEG should be decoded to.
    pub fn output(&self) -> Output {
        if self.gray == Gray::Luma && self.bands.is_none() { Output::Luma } else { Output::Native }
    }

    /// Whether all samples of 8-bit images of that many `bands` are looked at, as they are.
    pub fn takes_all(&self, bands: usize) -> bool {
        self.nodata.is_none() && bands::select(self.bands.as_deref(), bands).is_ok_and(|chosen| is_all(chosen, bands))
    }

    /// The rule that makes levels of pixels.
    pub fn gray(&self) -> Gray {
        self.gray
    }

    /// Fails when images of that many `bands` cannot be reduced.
    ///
    /// # Errors
    ///
    /// [`ImageError::Bands`] when the bands are not there, or are too many or too few for the rule.
    pub fn check_bands(&self, bands: usize) -> Result<()> {
        bands::select(self.bands.as_deref(), bands).and_then(|chosen| self.gray.check(chosen.len()))
    }

    /// Hands the gray levels of all valid pixels to `sink`.
    ///
    /// # Errors
    ///
    /// Those of [`GrayOptions::check_bands`] and [`GrayOptions::check_range`].
    pub fn gray_levels(&self, image: ImageRef<'_>, sink: &mut impl LevelSink) -> Result<()> {
        let missing = match image.samples {
            SamplesRef::U8(_) => self.narrow_nodata(),
            SamplesRef::U16(_) => self.missing_level::<u16>(),
            SamplesRef::I16(_) => self.missing_level::<i16>(),
            SamplesRef::F32(_) => self.missing_level::<f32>(),
            SamplesRef::F64(_) => self.missing_level::<f64>(),
        };
        sink.start(Header { width: image.width, height: image.height, missing, jpeg_quality: None });
        self.piece(image, sink)
    }

    /// The level of nodata in samples of 8 bits, if they can be that.
    pub(super) fn narrow_nodata(&self) -> Option<u8> {
        self.nodata.filter(|&value| f64::from(value as u8) == value).map(|value| value as u8)
    }

    /// The level of nodata in other samples, and of NaN.
    fn missing_level<T: Wide>(&self) -> Option<u8> {
        let missing = Missing::<T>::new(self.nodata);
        let level = |nodata| Quantizer::new(self.range, missing).level(nodata);
        missing.any().then(|| missing.nodata.map_or(0, level))
    }

    /// [`GrayOptions::gray_levels`] of a piece of an image, which has been announced to `sink`.
    pub(super) fn piece(&self, image: ImageRef<'_>, sink: &mut impl LevelSink) -> Result<()> {
        self.check_bands(image.bands)?;
        let chosen = bands::select(self.bands.as_deref(), image.bands)?;
        let bands = image.bands;
        let mut blocks = Blocks { gray: self.gray, bands, chosen, planes: Vec::new(), sink };
        match image.samples {
            SamplesRef::U8(samples) => {
                let nodata = self.narrow_nodata();
                // Samples that are levels already need no block to become them in.
                let block = if bands == 1 { usize::MAX } else { BLOCK * bands };
                for samples in samples.chunks(block) {
                    blocks.narrow(samples);
                    if let Some(nodata) = nodata {
                        blocks.remove(samples, |sample| sample == nodata, nodata);
                    }
                }
            }
            SamplesRef::U16(samples) => self.wide(samples, blocks)?,
            SamplesRef::I16(samples) => self.wide(samples, blocks)?,
            SamplesRef::F32(samples) => self.wide(samples, blocks)?,
            SamplesRef::F64(samples) => self.wide(samples, blocks)?,
        }
        Ok(())
    }

    /// The same for samples of more than 8 bits.
    fn wide<T: Wide>(&self, samples: &[T], mut blocks: Blocks<'_, impl LevelSink>) -> Result<()> {
        let (bands, missing) = (blocks.bands, Missing::new(self.nodata));
        self.check_values(samples, bands, blocks.chosen)?;
        let (quantizer, mut plane) = (Quantizer::new(self.range, missing), vec![T::default(); BLOCK]);
        let level = self.missing_level::<T>().unwrap_or(0);
        for samples in samples.chunks(BLOCK * bands) {
            blocks.wide(samples, &quantizer, &mut plane);
            if missing.any() {
                blocks.remove(samples, |sample| missing.has(sample), level);
            }
        }
        Ok(())
    }

    /// The chosen bands as 8-bit RGB, interleaved; a single band is repeated. Gray rule and nodata play no part.
    ///
    /// # Errors
    ///
    /// Those of [`GrayOptions::gray_levels`].
    pub fn rgb(&self, image: ImageRef<'_>) -> Result<Rgb> {
        let chosen = self.rgb_bands(image.bands)?;
        self.check_range(image.samples, image.bands, &chosen)?;
        let mut samples = Vec::new();
        memory::resize(&mut samples, 3 * image.width * image.height, 0)?;
        self.write_rgb(image.samples, image.bands, chosen, &mut samples);
        Ok(Rgb { width: image.width, height: image.height, samples })
    }

    /// Fails when samples are of more than 8 bits, no range was given, and the chosen bands do not use the whole one.
    ///
    /// # Errors
    ///
    /// [`ImageError::ValueRange`].
    pub(super) fn check_range(&self, samples: SamplesRef<'_>, bands: usize, chosen: &[usize]) -> Result<()> {
        match samples {
            SamplesRef::U8(_) => Ok(()),
            SamplesRef::U16(samples) => self.check_values(samples, bands, chosen),
            SamplesRef::I16(samples) => self.check_values(samples, bands, chosen),
            SamplesRef::F32(samples) => self.check_values(samples, bands, chosen),
            SamplesRef::F64(samples) => self.check_values(samples, bands, chosen),
        }
    }

    fn check_values<T: Wide>(&self, samples: &[T], bands: usize, chosen: &[usize]) -> Result<()> {
        if let Some(range) = self.range {
            return range.check::<T>();
        }
        let mut seen = ValuesSeen::new(Missing::new(self.nodata));
        if bands == 1 {
            seen.add(samples);
            return seen.check();
        }
        let mut plane = vec![T::default(); BLOCK];
        for samples in samples.chunks(BLOCK * bands) {
            for &band in chosen {
                take(samples, bands, band, &mut plane);
                seen.add(&plane[..samples.len() / bands]);
            }
        }
        seen.check()
    }

    /// The values of the chosen bands, as stored: those of every n-th pixel, so that no more than about `count` come back.
    /// `None` of samples of 8 bits, which are levels already.
    ///
    /// # Errors
    ///
    /// [`ImageError::Bands`].
    pub(super) fn values(&self, image: ImageRef<'_>, count: usize) -> Result<Option<(&'static str, Vec<f64>)>> {
        let chosen = bands::select(self.bands.as_deref(), image.bands)?;
        Ok(match image.samples {
            SamplesRef::U8(_) => None,
            SamplesRef::U16(samples) => Some(self.values_of(samples, image.bands, chosen, count)),
            SamplesRef::I16(samples) => Some(self.values_of(samples, image.bands, chosen, count)),
            SamplesRef::F32(samples) => Some(self.values_of(samples, image.bands, chosen, count)),
            SamplesRef::F64(samples) => Some(self.values_of(samples, image.bands, chosen, count)),
        })
    }

    fn values_of<T: Wide>(
        &self,
        samples: &[T],
        bands: usize,
        chosen: &[usize],
        count: usize,
    ) -> (&'static str, Vec<f64>) {
        let missing = Missing::new(self.nodata);
        let step = (samples.len() / bands * chosen.len()).div_ceil(count.max(1)).max(1);
        let pixels = samples.chunks_exact(bands).step_by(step);
        let values = pixels.flat_map(|pixel| chosen.iter().map(|&band| pixel[band]));
        let finite = |value: &f64| value.is_finite();
        (T::DTYPE, values.filter(|&value| !missing.has(value)).map(T::number).filter(finite).collect())
    }

    /// The band of each channel of [`GrayOptions::rgb`], for images of so many `bands`.
    ///
    /// # Errors
    ///
    /// Those of [`GrayOptions::check_bands`].
    pub(super) fn rgb_bands(&self, bands: usize) -> Result<[usize; 3]> {
        let chosen = bands::select(self.bands.as_deref(), bands)?;
        if !matches!(chosen.len(), 1 | 3) {
            return Err(ImageError::Bands(format!("{} bands were chosen, but RGB takes three, or one", chosen.len())));
        }
        Ok(std::array::from_fn(|i| chosen[if chosen.len() == 1 { 0 } else { i }]))
    }

    /// Writes pixels as 8-bit RGB. `chosen` comes from [`GrayOptions::rgb_bands`].
    pub(super) fn write_rgb(&self, samples: SamplesRef<'_>, bands: usize, chosen: [usize; 3], rgb: &mut [u8]) {
        let pixels = rgb.as_chunks_mut::<3>().0.iter_mut();
        match samples {
            SamplesRef::U8(samples) if is_all(&chosen, bands) => rgb.copy_from_slice(samples),
            SamplesRef::U8(samples) if bands == 1 => pixels.zip(samples).for_each(|(rgb, &sample)| *rgb = [sample; 3]),
            SamplesRef::U8(samples) => {
                pixels.zip(samples.chunks_exact(bands)).for_each(|(rgb, pixel)| *rgb = chosen.map(|band| pixel[band]));
            }
            SamplesRef::U16(samples) => self.write_wide(samples, bands, chosen, rgb),
            SamplesRef::I16(samples) => self.write_wide(samples, bands, chosen, rgb),
            SamplesRef::F32(samples) => self.write_wide(samples, bands, chosen, rgb),
            SamplesRef::F64(samples) => self.write_wide(samples, bands, chosen, rgb),
        }
    }

    fn write_wide<T: Wide>(&self, samples: &[T], bands: usize, chosen: [usize; 3], rgb: &mut [u8]) {
        let quantizer = Quantizer::new::<T>(self.range, Missing::new(self.nodata));
        let pixels = rgb.as_chunks_mut::<3>().0.iter_mut().zip(samples.chunks_exact(bands));
        pixels.for_each(|(rgb, pixel)| *rgb = chosen.map(|band| quantizer.level(pixel[band])));
    }
}

/// Whether `chosen` is every band in its place.
fn is_all(chosen: &[usize], bands: usize) -> bool {
    chosen.len() == bands && chosen.iter().enumerate().all(|(place, &band)| place == band)
}

/// The reduction of an image, a block of pixels at a time.
struct Blocks<'a, L> {
    gray: Gray,
    bands: usize,
    chosen: &'a [usize],
    /// The chosen bands of a block, one behind the other.
    planes: Vec<u8>,
    sink: &'a mut L,
}

impl<L: LevelSink> Blocks<'_, L> {
    /// Hands out the levels of 8-bit samples, those of nodata among them.
    fn narrow(&mut self, samples: &[u8]) {
        if !is_all(self.chosen, self.bands) {
            self.planes.resize(samples.len() / self.bands * self.chosen.len(), 0);
            let planes = self.planes.chunks_exact_mut(samples.len() / self.bands);
            planes.zip(self.chosen).for_each(|(plane, &band)| take(samples, self.bands, band, plane));
            return self.planar();
        }
        if self.bands == 1 {
            return self.sink.add(samples);
        }
        self.sink.add_with(samples.len() / self.bands, |levels| gray::levels(self.gray, self.bands, samples, levels));
    }

    /// The same for samples of more than 8 bits. `plane` has room for a block of one band.
    fn wide<T: Wide>(&mut self, samples: &[T], quantizer: &Quantizer, plane: &mut [T]) {
        let pixels = samples.len() / self.bands;
        self.planes.resize(pixels * self.chosen.len(), 0);
        for (levels, &band) in self.planes.chunks_exact_mut(pixels).zip(self.chosen) {
            if self.bands == 1 {
                quantizer.levels(samples, levels);
            } else {
                take(samples, self.bands, band, &mut plane[..pixels]);
                quantizer.levels(&plane[..pixels], levels);
            }
        }
        self.planar();
    }

    /// Hands out the levels of `planes`.
    fn planar(&mut self) {
        if let [_] = self.chosen {
            return self.sink.add(&self.planes);
        }
        let (gray, planes) = (self.gray, &self.planes);
        self.sink.add_with(planes.len() / self.chosen.len(), |levels| gray::levels_of_planes(gray, planes, levels));
    }

    /// Takes back the pixels whose chosen bands are all `missing`. The gray of equal levels is that `level`, by any rule.
    fn remove<T: Copy>(&mut self, samples: &[T], missing: impl Fn(T) -> bool, level: u8) {
        let pixels = samples.chunks_exact(self.bands);
        let count = match *self.chosen {
            _ if self.bands == 1 => samples.iter().filter(|&&sample| missing(sample)).count(),
            [a] => pixels.filter(|pixel| missing(pixel[a])).count(),
            // Without a decision a band.
            [a, b, c] => pixels.filter(|p| missing(p[a]) & missing(p[b]) & missing(p[c])).count(),
            _ => pixels.filter(|pixel| self.chosen.iter().all(|&band| missing(pixel[band]))).count(),
        };
        self.sink.remove(level, count);
    }
}

/// Copies one band of interleaved samples.
fn take<T: Copy>(samples: &[T], bands: usize, band: usize, plane: &mut [T]) {
    // The usual numbers of bands as constants: the step of the loop is known.
    match bands {
        3 => samples.as_chunks::<3>().0.iter().zip(plane).for_each(|(pixel, to)| *to = pixel[band]),
        4 => samples.as_chunks::<4>().0.iter().zip(plane).for_each(|(pixel, to)| *to = pixel[band]),
        _ => samples.chunks_exact(bands).zip(plane).for_each(|(pixel, to)| *to = pixel[band]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::image::Samples;
    use proptest::prelude::*;

    /// The levels, one pixel at a time.
    fn levels_one_by_one(image: &Image, chosen: &[usize], nodata: Option<u16>, gray: Gray) -> Vec<u8> {
        let stored = |i| match &image.samples {
            Samples::U8(samples) => u16::from(samples[i]),
            Samples::U16(samples) => samples[i],
            _ => unreachable!(),
        };
        let level = |sample: u16| match image.samples {
            Samples::U8(_) => u32::from(sample),
            _ => u32::from(sample >> 8),
        };
        (0..image.width * image.height)
            .map(|pixel| chosen.iter().map(|band| stored(pixel * image.bands + band)).collect::<Vec<_>>())
            .filter(|samples| nodata.is_none_or(|nodata| samples.iter().any(|&sample| sample != nodata)))
            .map(|samples| {
                let levels: Vec<u32> = samples.into_iter().map(level).collect();
                match (gray, &levels[..]) {
                    (_, &[only]) => only as u8,
                    (Gray::Mean, all) => (all.iter().sum::<u32>() as f64 / all.len() as f64 + 0.5) as u8,
                    (_, all) => ((19595 * all[0] + 38470 * all[1] + 7471 * all[2] + 32768) >> 16) as u8,
                }
            })
            .collect()
    }

    struct Counts([usize; 256]);

    impl LevelSink for Counts {
        fn add(&mut self, levels: &[u8]) {
            levels.iter().for_each(|&level| self.0[usize::from(level)] += 1);
        }

        fn add_with(&mut self, number: usize, write: impl FnOnce(&mut [u8])) {
            let mut levels = vec![0; number];
            write(&mut levels);
            self.add(&levels);
        }

        fn remove(&mut self, level: u8, count: usize) {
            self.0[usize::from(level)] -= count;
        }
    }

    fn any_image() -> impl Strategy<Value = Image> {
        let few = prop_oneof![Just(0u16), Just(1), Just(7), Just(255), any::<u16>()];
        (1..6usize, 0..30usize, 1..300usize, any::<bool>()).prop_flat_map(move |(bands, height, width, wide)| {
            proptest::collection::vec(few.clone(), bands * height * width).prop_map(move |samples| {
                let samples = match wide {
                    true => Samples::U16(samples),
                    false => Samples::U8(samples.into_iter().map(|sample| sample as u8).collect()),
                };
                Image { width, height, bands, samples }
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn levels_are_those_of_one_pixel_at_a_time(
            image in any_image(),
            places in proptest::collection::vec(any::<prop::sample::Index>(), 1..6),
            nodata in prop_oneof![Just(None), Just(Some(0)), Just(Some(7)), Just(Some(300))],
        ) {
            let chosen: Vec<usize> = places.iter().map(|place| place.index(image.bands)).collect();
            let gray = if matches!(chosen.len(), 1 | 3) { Gray::Bt601 } else { Gray::Mean };
            let options = GrayOptions::new(gray, Some(chosen.clone()), nodata.map(f64::from), Some((0.0, 65535.0))).unwrap();
            let mut counts = Counts([0; 256]);
            options.gray_levels(image.as_ref(), &mut counts).unwrap();
            let mut want = Counts([0; 256]);
            want.add(&levels_one_by_one(&image, &chosen, nodata, gray));
            prop_assert_eq!(counts.0, want.0);
        }
    }
}
