//! Images, as callers hold them, to squares.

use std::sync::{Mutex, PoisonError};

use super::{Resizer, Target};
use crate::error::{Error, ImageError, Result};
use crate::image::input::contained;
use crate::image::jpeg::{self, Color, MAX_COMPONENTS, RowSink};
use crate::image::{self, Format, GrayOptions, ImageRef, Input, Limits, Output, SamplesRef, Scratch, decode};
use crate::runtime::cpu::{self, Level};
use crate::runtime::parallel::Par;

/// Decodes and resizes every image into its place in `out`, [`Target::bytes`] each. Returns the number of each that failed
/// and why: its place is zero, and it does not stop the others.
///
/// # Errors
///
/// [`Error::Shape`] for an `out` of another length, [`Error::Argument`] of the instruction set that was asked for,
/// [`Error::Interrupted`] and [`Error::Threads`].
pub fn resize_inputs(
    inputs: &[Input<'_>],
    target: Target,
    options: &GrayOptions,
    limits: &Limits,
    out: &mut [u8],
    par: &Par<'_>,
) -> Result<Vec<(usize, Error)>> {
    if out.len() != inputs.len() * target.bytes() {
        let (images, bytes) = (inputs.len(), target.bytes());
        return Err(Error::Shape(format!("{images} images of {bytes} bytes do not fill an output of {}", out.len())));
    }
    let level = cpu::level()?;
    let failures = Mutex::new(Vec::new());
    par.for_blocks(
        out,
        target.bytes(),
        || (Scratch::default(), Vec::new(), Resizer::new(target, level)),
        |(scratch, line, resizer), i, out| {
            let pixels = Pixels { level, options, resizer, line, out: &mut *out };
            if let Err(error) = contained(scratch, |scratch| pixels.of_input(inputs[i], limits, scratch)) {
                out.fill(0);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push((i, error));
            }
            Ok(())
        },
    )?;
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable_by_key(|&(i, _)| i);
    Ok(failures)
}

/// The destination of the pixels of one image.
struct Pixels<'a> {
    level: Level,
    options: &'a GrayOptions,
    resizer: &'a mut Resizer,
    /// A row, where its bands are not those that are looked at.
    line: &'a mut Vec<u8>,
    out: &'a mut [u8],
}

impl Pixels<'_> {
    fn of_input(self, input: Input<'_>, limits: &Limits, scratch: &mut Scratch) -> Result<()> {
        match input {
            Input::Array(image) => Ok(self.of_array(image)?),
            encoded => encoded.with_bytes(limits, scratch, |bytes, scratch| self.of_bytes(bytes, limits, scratch)),
        }
    }

    fn of_bytes(self, bytes: &[u8], limits: &Limits, scratch: &mut Scratch) -> image::Result<()> {
        if Format::sniff(bytes)? != Format::Jpeg {
            return self.of_array(decode(bytes, Output::Native, limits, scratch)?.as_ref());
        }
        let (level, chosen) = (self.level, Ok([0, 1, 2]));
        let mut rows = JpegRows { pixels: self, level, color: Color::Gray, width: 0, direct: false, chosen };
        jpeg::decode_rows(bytes, Output::Native, limits, &mut scratch.jpeg, &mut rows).and(rows.chosen.map(drop))
    }

    fn of_array(self, image: ImageRef<'_>) -> image::Result<()> {
        let ImageRef { width, height, bands, samples } = image;
        let chosen = self.options.rgb_bands(bands)?;
        self.options.check_range(samples, bands, &chosen)?;
        if width == 0 || height == 0 {
            return Err(ImageError::NoValidPixels);
        }
        self.resizer.start(width, height)?;
        for y in 0..height {
            let row = y * width * bands..(y + 1) * width * bands;
            let samples = samples.part(row);
            self.resizer.push(self.out, |rgb| self.options.write_rgb(samples, bands, chosen, rgb));
        }
        Ok(())
    }
}

/// Resizes the rows of a JPEG as they are decoded.
struct JpegRows<'a> {
    pixels: Pixels<'a>,
    level: Level,
    color: Color,
    width: usize,
    /// Whether the picture's bands are those that are looked at.
    direct: bool,
    chosen: image::Result<[usize; 3]>,
}

impl RowSink for JpegRows<'_> {
    fn start(&mut self, width: usize, height: usize, color: Color) -> image::Result<()> {
        (self.width, self.color) = (width, color);
        self.chosen = self.pixels.options.rgb_bands(color.bands());
        self.direct = color.bands() == 3 && self.chosen == Ok([0, 1, 2]);
        self.pixels.resizer.start(width, height)
    }

    fn row(&mut self, planes: [&[u8]; MAX_COMPONENTS]) {
        let &mut Self { level, color, width, direct, chosen: Ok(chosen), .. } = self else { return };
        let Pixels { options, resizer, line, out, .. } = &mut self.pixels;
        resizer.push(out, |rgb| {
            if direct {
                return jpeg::interleave(level, color, planes, rgb);
            }
            line.resize(width * color.bands(), 0);
            jpeg::interleave(level, color, planes, line);
            options.write_rgb(SamplesRef::U8(line), color.bands(), chosen, rgb);
        });
    }
}
