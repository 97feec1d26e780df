//! JPEG (ITU-T T.81): baseline, extended and progressive Huffman coding, 8 bits a sample.
//!
//! The samples are those of libjpeg-turbo with its default settings, bit for bit, because entropies have to be those of
//! Pillow, which decodes with it. Where the standard leaves a choice (the inverse DCT's arithmetic, upsampling, color
//! conversion), that library's choice is taken; so it is where a file lacks its last scans ([`smoothing`]) or has wrong
//! restart markers ([`scan::Reader`]).
//!
//! From the file to pixels: [`markers`] reads the headers into a [`frame`], [`scan`] and [`progressive`] fill blocks of
//! coefficients with the help of [`huffman`], [`symbol_pairs`] and [`bits`], and [`row_output`] makes rows of the image
//! from them by [`idct`] and [`upsample`], which it hands to a [`row_output::RowSink`]. One sink converts them by
//! [`color`] and collects them; another, in [`gray_rows`], reduces them to gray levels.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod bits;
mod color;
mod frame;
mod gray_rows;
mod huffman;
mod idct;
mod markers;
mod progressive;
mod quality;
mod row_output;
mod scan;
mod smoothing;
mod symbol_pairs;
mod upsample;

use bits::{Segments, next_marker};
use frame::Frame;
use huffman::Table;
use markers::{Markers, Next, Scan};
use progressive::{AcFirst, AcRefine, DcFirst, DcRefine, Progress};
use row_output::{Plan, Strips};
use scan::{Block, Layout, Reader, Sequential};
use symbol_pairs::SymbolPairs;

pub use frame::Color;
pub use gray_rows::gray_levels;
pub use row_output::RowSink;
pub(super) use {color::interleave, frame::MAX_COMPONENTS};

use super::memory::{self, Memory};
use super::{Image, Limits, Result, Samples, check_cancelled};
use crate::error::ImageError;
use crate::runtime::cpu::{self, Level};

/// What to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// All of the picture: one band for grayscale, else red, green and blue.
    Native,
    /// Only the luminance that the file stores: one band. Pictures without it come as with [`Output::Native`].
    Luma,
}

/// What one image leaves of a buffer to the next. The rest is given back.
const KEPT_BYTES: usize = 32 << 20;

/// Memory that one image leaves to the next: decoding many allocates nothing but their samples.
#[derive(Debug, Default)]
pub struct Scratch {
    tables: Tables,
    segments: Segments,
    blocks: Vec<Block>,
    strips: Strips,
    /// Rows on their way to levels.
    samples: Vec<u8>,
    pub(super) memory: Memory,
}

/// Decodes a file.
///
/// # Errors
/// [`ImageError::Truncated`] if it ends before the image does, [`ImageError::Corrupt`] if it contradicts the standard,
/// [`ImageError::Unsupported`] for arithmetic, lossless, hierarchical and 12-bit coding, [`ImageError::TooLarge`] above
/// the limit.
pub fn decode(bytes: &[u8], output: Output, limits: &Limits, scratch: &mut Scratch) -> Result<Image> {
    let mut samples = Vec::new();
    let (width, height, bands) = decode_into(bytes, output, limits, scratch, &mut samples)?;
    Ok(Image { width, height, bands, samples: Samples::U8(samples) })
}

/// Decodes a file into `samples`, whose memory is used again. Returns width, height and bands.
///
/// # Errors
/// As [`decode`]; then the content of `samples` has no meaning.
pub fn decode_into(
    bytes: &[u8],
    output: Output,
    limits: &Limits,
    scratch: &mut Scratch,
    samples: &mut Vec<u8>,
) -> Result<(usize, usize, usize)> {
    let mut sink = Interleave::new(cpu::active(), samples);
    decode_rows(bytes, output, limits, scratch, &mut sink)?;
    Ok((sink.width, sink.height, sink.bands))
}

/// Decodes a file whose tables may stand in another one, and whose components are of that `color`, whatever its markers say.
/// Returns width, height and bands.
///
/// # Errors
/// As [`decode_into`].
pub fn decode_with_tables(
    bytes: &[u8],
    tables: &[u8],
    color: Color,
    limits: &Limits,
    scratch: &mut Scratch,
    samples: &mut Vec<u8>,
) -> Result<(usize, usize, usize)> {
    let mut markers = Markers::new(bytes, limits)?;
    if !tables.is_empty() {
        markers.read_tables(tables)?;
    }
    markers.set_color(color);
    let mut sink = Interleave::new(cpu::active(), samples);
    decode_from(markers, cpu::active(), bytes, Output::Native, scratch, &mut sink)?;
    Ok((sink.width, sink.height, sink.bands))
}

/// Decodes a file row by row.
///
/// # Errors
/// As [`decode`]; rows may have been handed out before.
pub fn decode_rows(
    bytes: &[u8],
    output: Output,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut impl RowSink,
) -> Result<()> {
    decode_rows_with(cpu::active(), bytes, output, limits, scratch, sink)
}

fn decode_rows_with(
    level: Level,
    bytes: &[u8],
    output: Output,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut impl RowSink,
) -> Result<()> {
    decode_from(Markers::new(bytes, limits)?, level, bytes, output, scratch, sink)
}

/// Decodes the file that `markers` are about to read.
fn decode_from(
    mut markers: Markers<'_>,
    level: Level,
    bytes: &[u8],
    output: Output,
    scratch: &mut Scratch,
    sink: &mut impl RowSink,
) -> Result<()> {
    let scan = match markers.next_scan()? {
        Next::Scan(scan) => scan,
        Next::EndOfImage => return Err(corrupt("there is no image before the end-of-image marker")),
        Next::EndOfFile => return Err(truncated("the file ends before the image starts")),
    };
    let frame = markers.frame()?;
    // No block takes less than a bit: this bounds what memory a small file can ask for.
    if frame.blocks().div_ceil(8) > bytes.len() - markers.position() {
        return Err(truncated("the data is too short for the declared size"));
    }
    let plan = Plan::new(frame, output)?;
    scratch.strips.prepare(frame, &plan);
    let decoding = Decoding { level, bytes, plan };
    let outcome = if !frame.progressive && scan.selectors().len() == frame.components().len() {
        decoding.single_scan(&markers, &scan, scratch, sink)
    } else {
        decoding.many_scans(&mut markers, scan, scratch, sink)
    };
    scratch.blocks.truncate(KEPT_BYTES / size_of::<Block>());
    scratch.blocks.shrink_to(KEPT_BYTES / size_of::<Block>());
    scratch.segments.shrink_to(KEPT_BYTES);
    outcome
}

/// One image being decoded.
struct Decoding<'a> {
    level: Level,
    bytes: &'a [u8],
    plan: Plan,
}

impl Decoding<'_> {
    /// Announces the image.
    fn start(&self, frame: &Frame, sink: &mut impl RowSink) -> Result<()> {
        if let Some(table) = &frame.components()[0].quantizer {
            sink.quantized_by(table);
        }
        sink.start(frame.width, frame.height, self.plan.color)
    }

    /// All components in one sequential scan: each row of MCUs becomes rows of the image at once.
    fn single_scan(
        &self,
        markers: &Markers<'_>,
        scan: &Scan,
        scratch: &mut Scratch,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let Scratch { tables, segments, blocks, strips, .. } = scratch;
        let frame = markers.frame()?;
        tables.prepare(markers, scan)?;
        let (places, count) = self.plan.places(frame, 1);
        // Rows of MCUs are read to the same place, whether the scan is interleaved or of one component of any height.
        let layout = Layout::new(frame, scan, &places)?;
        let rows_in_strip = if scan.selectors().len() == 1 { frame.components()[0].v } else { 1 };
        let interval = markers.restart_interval();
        segments.read(self.bytes, markers.position(), layout.segments(interval));
        let mut reader = Reader::new(segments, interval)?;
        let mut coder = tables.sequential(scan);
        self.start(frame, sink)?;
        for mcu_row in 0..frame.mcus_down {
            check_cancelled()?;
            blocks.clear();
            blocks.resize(count, [0; 64]);
            let mut layout = layout.clone();
            for _ in 0..rows_in_strip.min(layout.down - mcu_row * rows_in_strip) {
                reader.row(self.level, &mut coder, &layout, blocks)?;
                layout.next_row();
            }
            strips.emit(self.level, frame, &self.plan, mcu_row, blocks, &places, sink);
        }
        Ok(())
    }

    /// Several scans: their coefficients are collected first.
    fn many_scans(
        &self,
        markers: &mut Markers<'_>,
        first: Scan,
        scratch: &mut Scratch,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let Scratch { tables, segments, blocks, strips, memory, .. } = scratch;
        let frame = markers.frame()?;
        let (places, count) = self.plan.places(frame, frame.mcus_down);
        blocks.clear();
        memory.resize(blocks, count, [0; 64])?;
        let mut progress = Progress::new();
        let mut next = Next::Scan(first);
        while let Next::Scan(scan) = next {
            let position = self.scan(markers, &scan, &places, &mut progress, (&mut *tables, &mut *segments), blocks)?;
            markers.seek(position);
            next = markers.next_scan()?;
        }
        markers.quantize_all();
        let frame = markers.frame()?;
        let complete = (0..frame.components().len()).all(|i| !self.plan.wants(i) || progress.complete(i));
        // An end that is marked is where the writer stopped.
        if !complete && !matches!(next, Next::EndOfImage) {
            return Err(truncated("the file ends before its last scan"));
        }
        self.start(frame, sink)?;
        if !complete && smoothing::applies(frame, &progress) {
            self.emit_smoothed(frame, &progress, &places, blocks, strips, sink);
            return Ok(());
        }
        for mcu_row in 0..frame.mcus_down {
            check_cancelled()?;
            let mut row = places;
            for (place, component) in row.iter_mut().zip(frame.components()) {
                *place = place.map(|place| place + mcu_row * component.v * component.padded_across);
            }
            strips.emit(self.level, frame, &self.plan, mcu_row, blocks, &row, sink);
        }
        Ok(())
    }

    /// Hands out the rows of an image of which not all coefficients were sent.
    fn emit_smoothed(
        &self,
        frame: &Frame,
        progress: &Progress,
        places: &[Option<usize>; MAX_COMPONENTS],
        blocks: &[Block],
        strips: &mut Strips,
        sink: &mut impl RowSink,
    ) {
        let (row_places, _) = self.plan.places(frame, 1);
        let mut smoothed = Vec::new();
        for mcu_row in 0..frame.mcus_down {
            smoothed.clear();
            smoothed.push([0; 64]);
            for (i, component) in frame.components().iter().enumerate() {
                let Some(place) = places[i] else { continue };
                for y in mcu_row * component.v..(mcu_row + 1) * component.v {
                    if y < component.blocks_down {
                        smoothing::row(frame, progress, i, y, &blocks[place..], &mut smoothed);
                    } else {
                        smoothed.resize(smoothed.len() + component.padded_across, [0; 64]);
                    }
                }
            }
            strips.emit(self.level, frame, &self.plan, mcu_row, &smoothed, &row_places, sink);
        }
    }

    /// Reads one scan of several. Returns where the next marker is to be looked for.
    fn scan(
        &self,
        markers: &Markers<'_>,
        scan: &Scan,
        places: &[Option<usize>; MAX_COMPONENTS],
        progress: &mut Progress,
        (tables, segments): (&mut Tables, &mut Segments),
        blocks: &mut [Block],
    ) -> Result<usize> {
        let frame = markers.frame()?;
        let layout = Layout::new(frame, scan, places)?;
        if frame.progressive {
            progress.advance(scan)?;
        } else {
            progress.advance_whole(scan)?;
        }
        if !scan.selectors().iter().any(|selector| self.plan.wants(selector.component)) {
            return self.end_of_scan(markers.position());
        }
        tables.prepare(markers, scan)?;
        let interval = markers.restart_interval();
        let end = segments.read(self.bytes, markers.position(), layout.segments(interval));
        let mut reader = Reader::new(segments, interval)?;
        let (dc, ac) = (tables.of(false, scan), tables.of(true, scan));
        let &Scan { first, last, low, .. } = scan;
        match (frame.progressive, first, scan.high) {
            (false, ..) => reader.rows(self.level, &mut tables.sequential(scan), layout, blocks)?,
            (true, 0, 0) => reader.rows(self.level, &mut DcFirst::new(dc, low), layout, blocks)?,
            (true, 0, _) => reader.rows(self.level, &mut DcRefine::new(low), layout, blocks)?,
            (true, _, 0) => reader.rows(self.level, &mut AcFirst::new(ac[0], first, last, low), layout, blocks)?,
            (true, ..) => reader.rows(self.level, &mut AcRefine::new(ac[0], first, last, low), layout, blocks)?,
        }
        Ok(end)
    }

    /// Finds the marker that ends the scan whose data starts at `position`.
    fn end_of_scan(&self, mut position: usize) -> Result<usize> {
        loop {
            match next_marker(self.bytes, position) {
                Some((0xd0..=0xd7, behind)) => position = behind,
                Some((_, behind)) => return Ok(behind - 2),
                None => return Err(truncated("the file ends within a scan")),
            }
        }
    }
}

/// The tables of the last scan, by class and slot. They are kept because many files share them, and building them is slow.
#[derive(Debug, Default)]
struct Tables {
    tables: Box<[[Table; 4]; 2]>,
    /// The pairs of the AC tables, for sequential scans.
    pairs: Box<[SymbolPairs; 4]>,
}

impl Tables {
    /// Builds the tables that `scan` needs.
    fn prepare(&mut self, markers: &Markers<'_>, scan: &Scan) -> Result<()> {
        let progressive = markers.frame()?.progressive;
        let needed = [!progressive || (scan.first == 0 && scan.high == 0), !progressive || scan.first > 0];
        for selector in scan.selectors() {
            for (ac, slot) in [(false, selector.dc), (true, selector.ac)] {
                if needed[usize::from(ac)] {
                    let spec = markers.huffman(ac, slot, !progressive)?;
                    let table = &mut self.tables[usize::from(ac)][slot & 3];
                    if *table.spec() != spec {
                        *table = Table::new(&spec, !ac)?;
                    }
                    if ac && !progressive {
                        self.pairs[slot & 3].set(table);
                    }
                }
            }
        }
        Ok(())
    }

    /// By selector: the table of a class.
    fn of(&self, ac: bool, scan: &Scan) -> [&Table; MAX_COMPONENTS] {
        let tables = &self.tables[usize::from(ac)];
        std::array::from_fn(|i| &tables[scan.selectors().get(i).map_or(0, |s| if ac { s.ac } else { s.dc }) & 3])
    }

    /// The coder of a sequential scan.
    fn sequential(&self, scan: &Scan) -> Sequential<'_> {
        let ac = std::array::from_fn(|i| {
            let slot = scan.selectors().get(i).map_or(0, |s| s.ac) & 3;
            (&self.tables[1][slot], &self.pairs[slot])
        });
        Sequential::new(self.of(false, scan), ac)
    }
}

/// The sink that collects the picture: gray, or red, green and blue, interleaved.
struct Interleave<'a> {
    level: Level,
    color: Color,
    width: usize,
    height: usize,
    bands: usize,
    /// The next row.
    y: usize,
    samples: &'a mut Vec<u8>,
}

impl<'a> Interleave<'a> {
    fn new(level: Level, samples: &'a mut Vec<u8>) -> Self {
        Interleave { level, color: Color::Gray, width: 0, height: 0, bands: 0, y: 0, samples }
    }
}

impl RowSink for Interleave<'_> {
    fn start(&mut self, width: usize, height: usize, color: Color) -> Result<()> {
        (self.width, self.height, self.color) = (width, height, color);
        self.bands = color.bands();
        // What is there already is overwritten, not cleared.
        memory::resize(self.samples, width * height * self.bands, 0)
    }

    fn row(&mut self, planes: [&[u8]; MAX_COMPONENTS]) {
        let length = self.width * self.bands;
        color::interleave(self.level, self.color, planes, &mut self.samples[self.y * length..][..length]);
        self.y += 1;
    }
}

/// Why a block's data has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invalid {
    /// Bits that are no code of the table.
    Code,
    /// A run of zeros that leads out of the block.
    Run,
    /// A coefficient that is refined by more than a bit.
    Refinement,
}

impl Invalid {
    fn detail(self) -> &'static str {
        match self {
            Self::Code => "image data that is no Huffman code",
            Self::Run => "a run of zero coefficients that leads out of its block",
            Self::Refinement => "a coefficient that one scan refines by more than a bit",
        }
    }
}

const FORMAT: &str = "JPEG";

fn corrupt(detail: impl Into<String>) -> ImageError {
    ImageError::Corrupt { format: FORMAT, detail: detail.into() }
}

fn truncated(detail: impl Into<String>) -> ImageError {
    ImageError::Truncated { format: FORMAT, detail: detail.into() }
}

fn unsupported(detail: impl Into<String>) -> ImageError {
    ImageError::Unsupported { format: FORMAT, detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_agree_on_whole_files() {
        for bytes in [
            &include_bytes!("../../../../../tests/golden/jpeg/baseline_420.jpg")[..],
            &include_bytes!("../../../../../tests/golden/jpeg/progressive_444.jpg")[..],
            &include_bytes!("../../../../../tests/golden/jpeg/scans_440.jpg")[..],
        ] {
            let [portable, fast] = [Level::Scalar, cpu::active()].map(|level| {
                let mut samples = Vec::new();
                let mut sink = Interleave::new(level, &mut samples);
                decode_rows_with(level, bytes, Output::Native, &Limits::default(), &mut Scratch::default(), &mut sink)
                    .unwrap();
                samples
            });
            assert_eq!(portable, fast);
        }
    }
}
