//! The reduction of an image's samples: bands are chosen, 16 bits become 8, nodata is left out, colours become gray.

use super::gray::{self, Gray};
use super::quantise::Quantiser;
use super::{ImageRef, Output, Result, Rgb, SamplesRef, bands};
use crate::error::{Error, ImageError};

/// Pixels reduced at a time: their samples and levels stay in the first cache.
const BLOCK: usize = 4096;

/// What is looked at in an image, and how its pixels become levels.
#[derive(Debug, Clone)]
pub struct Reduction {
    gray: Gray,
    bands: Option<Vec<usize>>,
    nodata: Option<u16>,
    /// Of 16-bit samples. `None`: the high byte, and 8-bit samples are welcome.
    range: Option<Quantiser>,
}

impl Reduction {
    /// `bands`: those to look at; by default the first three, or the only one. `nodata`: a pixel whose chosen bands all hold
    /// this value, as stored, is left out. `valid_range`: the values of 16-bit samples that span the 256 levels.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] for an empty range, no bands at all, and a number of bands that `gray` does not take.
    pub fn new(
        gray: Gray,
        bands: Option<Vec<usize>>,
        nodata: Option<u16>,
        valid_range: Option<(u16, u16)>,
    ) -> Result<Self, Error> {
        if let Some(bands) = &bands {
            if bands.is_empty() {
                return Err(Error::Argument("bands=() chooses nothing; leave it out for the default".into()));
            }
            gray.check(bands.len()).map_err(|cause| Error::Argument(cause.to_string()))?;
        }
        let range = valid_range.map(|(lo, hi)| Quantiser::new(lo, hi)).transpose()?;
        Ok(Reduction { gray, bands, nodata, range })
    }

    /// What a JPEG should be decoded to for this reduction.
    pub fn output(&self) -> Output {
        if self.gray == Gray::Luma && self.bands.is_none() { Output::Luma } else { Output::Native }
    }

    /// Hands the gray levels of all valid pixels to `sink`, a block at a time.
    ///
    /// # Errors
    ///
    /// [`ImageError::Bands`] when the bands are not there, and [`ImageError::Unsupported`] when a range of 16-bit values was
    /// given for 8-bit samples.
    pub fn gray_levels(&self, image: ImageRef<'_>, mut sink: impl FnMut(&[u8])) -> Result<()> {
        let bands = image.bands;
        let chosen = bands::select(self.bands.as_deref(), bands)?;
        self.gray.check(chosen.len())?;
        let mut levels = [0; BLOCK];
        let gray_block = |samples: &[u8]| {
            if chosen.len() == 1 {
                return sink(samples);
            }
            let levels = &mut levels[..samples.len() / chosen.len()];
            gray::levels(self.gray, chosen.len(), samples, levels);
            sink(levels);
        };
        match image.samples {
            SamplesRef::U8(samples) => {
                self.check_eight_bits()?;
                let nodata = self.nodata.and_then(|value| u8::try_from(value).ok());
                if nodata.is_none() && is_all(&chosen, bands) {
                    samples.chunks(BLOCK * bands).for_each(gray_block);
                } else {
                    gather(samples, bands, &chosen, nodata, |sample| sample, gray_block);
                }
            }
            SamplesRef::U16(samples) => {
                let quantiser = self.quantiser();
                gather(samples, bands, &chosen, self.nodata, |sample| quantiser.level(sample), gray_block);
            }
        }
        Ok(())
    }

    /// The chosen bands as 8-bit RGB, interleaved; a single band is repeated. Gray rule and nodata play no part.
    ///
    /// # Errors
    ///
    /// Those of [`Reduction::gray_levels`].
    pub fn rgb(&self, image: ImageRef<'_>) -> Result<Rgb> {
        let chosen = bands::select(self.bands.as_deref(), image.bands)?;
        if !matches!(chosen.len(), 1 | 3) {
            return Err(ImageError::Bands(format!("{} bands were chosen, but RGB takes three, or one", chosen.len())));
        }
        let repeated = if chosen.len() == 1 { vec![chosen[0]; 3] } else { chosen };
        let mut rgb = Vec::with_capacity(image.width * image.height * 3);
        let mut sink = |block: &[u8]| rgb.extend_from_slice(block);
        match image.samples {
            SamplesRef::U8(samples) => {
                self.check_eight_bits()?;
                if is_all(&repeated, image.bands) {
                    sink(samples);
                } else {
                    gather(samples, image.bands, &repeated, None, |sample| sample, sink);
                }
            }
            SamplesRef::U16(samples) => {
                let quantiser = self.quantiser();
                gather(samples, image.bands, &repeated, None, |sample| quantiser.level(sample), sink);
            }
        }
        Ok(Rgb { width: image.width, height: image.height, samples: rgb })
    }

    fn quantiser(&self) -> Quantiser {
        self.range.unwrap_or_else(Quantiser::high_byte)
    }

    fn check_eight_bits(&self) -> Result<()> {
        match self.range {
            None => Ok(()),
            Some(_) => Err(ImageError::Unsupported {
                format: "8-bit image",
                detail: "valid_range gives the range of 16-bit samples; leave it out".into(),
            }),
        }
    }
}

/// Whether `chosen` is every band in its place.
fn is_all(chosen: &[usize], bands: usize) -> bool {
    chosen.len() == bands && chosen.iter().enumerate().all(|(place, &band)| place == band)
}

/// Hands the levels of the chosen bands of all valid pixels to `sink`, interleaved, a block at a time.
fn gather<T: Copy + PartialEq>(
    samples: &[T],
    bands: usize,
    chosen: &[usize],
    nodata: Option<T>,
    level: impl Fn(T) -> u8,
    sink: impl FnMut(&[u8]),
) {
    // The usual numbers of bands as arrays: the loop over a pixel's bands unrolls.
    match *chosen {
        [a] => gather_chosen(samples, bands, [a], nodata, level, sink),
        [a, b, c] => gather_chosen(samples, bands, [a, b, c], nodata, level, sink),
        _ => gather_chosen(samples, bands, chosen, nodata, level, sink),
    }
}

fn gather_chosen<T: Copy + PartialEq>(
    samples: &[T],
    bands: usize,
    chosen: impl AsRef<[usize]>,
    nodata: Option<T>,
    level: impl Fn(T) -> u8,
    mut sink: impl FnMut(&[u8]),
) {
    let chosen = chosen.as_ref();
    let mut block = vec![0; BLOCK * chosen.len()];
    for pixels in samples.chunks(BLOCK * bands) {
        let mut kept = 0;
        for pixel in pixels.chunks_exact(bands) {
            // Every pixel is written; the next one overwrites it if it is nodata.
            let place = &mut block[kept * chosen.len()..][..chosen.len()];
            let mut valid = nodata.is_none();
            for (to, &band) in place.iter_mut().zip(chosen) {
                let sample = pixel[band];
                *to = level(sample);
                valid |= nodata.is_some_and(|nodata| sample != nodata);
            }
            kept += usize::from(valid);
        }
        sink(&block[..kept * chosen.len()]);
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
        };
        let level = |sample: u16| match image.samples {
            Samples::U8(_) => u32::from(sample),
            Samples::U16(_) => u32::from(sample >> 8),
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
            let reduction = Reduction::new(gray, Some(chosen.clone()), nodata, None).unwrap();
            let mut levels = Vec::new();
            reduction.gray_levels(image.as_ref(), |block| levels.extend_from_slice(block)).unwrap();
            prop_assert_eq!(levels, levels_one_by_one(&image, &chosen, nodata, gray));
        }
    }
}
