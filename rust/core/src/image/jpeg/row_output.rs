//! Makes rows of the image out of coefficients, one row of MCUs at a time.

use super::Output;
use super::frame::{Color, Frame, MAX_COMPONENTS};
use super::idct;
use super::scan::Block;
use super::upsample::{self, Upsampling};
use crate::image::Result;
use crate::runtime::cpu::Level;

/// Takes an image's rows as they are finished.
pub trait RowSink {
    /// Called before [`RowSink::start`] with the quantization table of the first component, in natural order.
    fn quantized_by(&mut self, _table: &[u16; 64]) {}

    /// Called once, before the first row.
    ///
    /// # Errors
    /// [`ImageError::OutOfMemory`](crate::error::ImageError::OutOfMemory).
    fn start(&mut self, width: usize, height: usize, color: Color) -> Result<()>;

    /// Takes the next row: one slice of `width` samples for each component of the color space.
    fn row(&mut self, planes: [&[u8]; MAX_COMPONENTS]);
}

/// Which components of a frame are decoded, how they are upsampled, and the color space of the rows.
#[derive(Debug)]
pub struct Plan {
    /// The color space of the rows.
    pub color: Color,
    /// For each component, how it is upsampled if it is wanted.
    wanted: [Option<Upsampling>; MAX_COMPONENTS],
}

impl Plan {
    /// Plans for `frame`.
    pub fn new(frame: &Frame, output: Output) -> Result<Self> {
        let (color, count) = match (output, frame.color) {
            (Output::Luma, Color::YCbCr) => (Color::Gray, 1),
            (_, color) => (color, frame.components().len()),
        };
        let mut wanted = [None; MAX_COMPONENTS];
        for (wanted, component) in wanted.iter_mut().zip(&frame.components()[..count]) {
            *wanted = Some(Upsampling::of(component, frame)?);
        }
        Ok(Plan { color, wanted })
    }

    /// Whether a component is asked for.
    pub fn wants(&self, component: usize) -> bool {
        self.wanted[component].is_some()
    }

    /// Returns where the blocks of each component start if it holds `mcu_rows` rows of MCUs, and the number of blocks in
    /// all. The first block is spare.
    pub fn places(&self, frame: &Frame, mcu_rows: usize) -> ([Option<usize>; MAX_COMPONENTS], usize) {
        let (mut places, mut end) = ([None; MAX_COMPONENTS], 1);
        for (i, component) in frame.components().iter().enumerate().filter(|&(i, _)| self.wants(i)) {
            places[i] = Some(end);
            end += component.padded_across * component.v * mcu_rows;
        }
        (places, end)
    }
}

/// The samples of one row of MCUs, and the part of the row above that is still needed.
#[derive(Debug, Default)]
pub struct Strips {
    /// For each component, the last row of the strip above, then the rows of this one.
    samples: [Vec<u8>; MAX_COMPONENTS],
    /// For each component, one row, upsampled.
    row: [Vec<u8>; MAX_COMPONENTS],
}

impl Strips {
    /// Makes room for `plan`.
    pub fn prepare(&mut self, frame: &Frame, plan: &Plan) {
        for (i, component) in frame.components().iter().enumerate() {
            let Some(upsampling) = plan.wanted[i] else { continue };
            self.samples[i].resize((1 + 8 * component.v) * component.padded_across * 8, 0);
            if upsampling != Upsampling::None {
                self.row[i].resize(component.width * (frame.max_h / component.h), 0);
            }
        }
    }

    /// Turns the `mcu_row`-th row of MCUs, whose blocks start at `places`, into rows of the image, and hands out those
    /// that do not wait for the next one.
    #[allow(clippy::too_many_arguments, reason = "the state of one decode, of which each piece has its owner")]
    pub fn emit(
        &mut self,
        level: Level,
        frame: &Frame,
        plan: &Plan,
        mcu_row: usize,
        blocks: &[Block],
        places: &[Option<usize>; MAX_COMPONENTS],
        sink: &mut impl RowSink,
    ) {
        for (i, component) in frame.components().iter().enumerate() {
            let (Some(place), Some(quantizer)) = (places[i], &component.quantizer) else { continue };
            let stride = component.padded_across * 8;
            let samples = &mut self.samples[i];
            samples.copy_within(8 * component.v * stride.., 0);
            for y in 0..component.v.min(component.blocks_down - mcu_row * component.v) {
                let blocks = &blocks[place + y * component.padded_across..][..component.blocks_across];
                idct::row_of_blocks(level, blocks, quantizer, &mut samples[(1 + 8 * y) * stride..], stride);
            }
        }

        // The last row waits for the strip below where rows are interpolated.
        let lag = usize::from(plan.wanted.iter().flatten().any(|upsampling| upsampling.interpolates_rows()));
        let rows_of_mcu = 8 * frame.max_v;
        let start = (mcu_row * rows_of_mcu).saturating_sub(lag);
        let below = (mcu_row + 1) * rows_of_mcu;
        let end = if below >= frame.height { frame.height } else { below - lag };
        for y in start..end {
            for (i, component) in frame.components().iter().enumerate() {
                let Some(upsampling) = plan.wanted[i].filter(|&u| u != Upsampling::None) else { continue };
                let (near, far) = upsampling.rows(y, component.height);
                let slice = |row| &self.samples[i][at(frame, i, mcu_row, row)..][..component.width];
                upsample::row(level, upsampling, y, slice(near), slice(far), &mut self.row[i]);
            }
            let planes = std::array::from_fn(|i| match plan.wanted[i] {
                None => &[][..],
                Some(Upsampling::None) => &self.samples[i][at(frame, i, mcu_row, y)..][..frame.width],
                Some(_) => &self.row[i][..frame.width],
            });
            sink.row(planes);
        }
    }
}

/// Where row `row` of component `i` starts in its strip.
fn at(frame: &Frame, i: usize, mcu_row: usize, row: usize) -> usize {
    let component = &frame.components()[i];
    (row + 1 - mcu_row * 8 * component.v) * component.padded_across * 8
}
