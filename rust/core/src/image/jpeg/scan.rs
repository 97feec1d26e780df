//! Scans: the blocks that entropy-coded data fills, MCU by MCU (T.81 A.2, E.2, F.2).

use super::bits::{Bits, End, Segments};
use super::frame::{Frame, MAX_COMPONENTS};
use super::huffman::{LOOKUP_BITS, Table};
use super::markers::{Scan, ZIGZAG};
use super::symbol_pairs::{END, SymbolPairs};
use super::{Invalid, corrupt, truncated};
use crate::error::ImageError;
use crate::image::{Result, check_cancelled};
use crate::runtime::cpu::{Level, dispatch};

/// The coefficients of 8 x 8 samples in natural order.
pub type Block = [i16; 64];

/// The most blocks in an MCU of several components (T.81 B.2.3).
const MAX_UNITS: usize = 10;

/// One block of an MCU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unit {
    /// Which of the scan's components it belongs to.
    pub selector: usize,
    /// Its place in a row of MCUs.
    first: usize,
    /// From its place in one MCU to that in the next.
    step: usize,
}

/// How a scan's MCUs lie in the coefficients.
#[derive(Debug, Clone)]
pub struct Layout {
    units: [Unit; MAX_UNITS],
    count: usize,
    /// MCUs in a row.
    pub across: usize,
    /// Rows of MCUs.
    pub down: usize,
    /// By selector: from one row of MCUs to the next.
    row_steps: [usize; MAX_COMPONENTS],
}

impl Layout {
    /// Lays out `scan`. `places` tells for each component of the frame where its blocks start; components without a
    /// place are read over.
    pub fn new(frame: &Frame, scan: &Scan, places: &[Option<usize>; MAX_COMPONENTS]) -> Result<Self> {
        let selectors = scan.selectors();
        let mut layout = Layout {
            units: Default::default(),
            count: 0,
            across: frame.mcus_across,
            down: frame.mcus_down,
            row_steps: [0; MAX_COMPONENTS],
        };
        for (i, selector) in selectors.iter().enumerate() {
            let component = &frame.components()[selector.component];
            let place = places[selector.component];
            let mut push = |first: usize, step: usize| {
                let slot = layout.units.get_mut(layout.count).ok_or_else(|| {
                    corrupt(format!("a scan whose sampling factors give more than {MAX_UNITS} blocks an MCU"))
                })?;
                // What is not asked for goes to the spare block that stands before all others: to read over it, and to
                // ask each time whether to, takes longer.
                *slot = match place {
                    Some(place) => Unit { selector: i, first: place + first, step },
                    None => Unit { selector: i, first: 0, step: 0 },
                };
                layout.count += 1;
                Ok(())
            };
            if selectors.len() == 1 {
                // A scan of one component leaves out the blocks that only fill MCUs (T.81 A.2.2).
                push(0, 1)?;
                (layout.across, layout.down) = (component.blocks_across, component.blocks_down);
            } else {
                for y in 0..component.v {
                    for x in 0..component.h {
                        push(y * component.padded_across + x, component.h)?;
                    }
                }
            }
            let rows = if selectors.len() == 1 { 1 } else { component.v };
            layout.row_steps[i] = if place.is_some() { rows * component.padded_across } else { 0 };
        }
        Ok(layout)
    }

    /// The most segments that the data may consist of with a restart marker behind every `interval` MCUs, if that is not 0.
    /// Damaged files have markers twice.
    pub fn segments(&self, interval: usize) -> usize {
        if interval == 0 { 1 } else { 2 * (self.across * self.down).div_ceil(interval) }
    }

    /// Moves on by a row of MCUs.
    pub fn next_row(&mut self) {
        for unit in &mut self.units[..self.count] {
            unit.first += self.row_steps[unit.selector];
        }
    }
}

/// What the data of one kind of scan does to a block.
pub trait Coder {
    /// Reads the data of one block.
    fn block(&mut self, bits: &mut Bits<'_>, unit: &Unit, block: &mut Block) -> Result<(), Invalid>;
    /// Forgets what does not reach over a restart marker.
    fn restart(&mut self);
}

/// What there is to read before the next restart marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    /// A segment.
    There,
    /// Nothing: its segment was lost.
    Lost,
    /// Nothing any more.
    Spent,
}

/// A scan's data, read row by row.
///
/// Restart markers number the segments. Where one is not the expected one, libjpeg's way is gone: a number just ahead says
/// that segments were lost, one just past that segments came twice, and any other is taken for the expected one. Of a lost
/// segment the first MCU is read from zeros, and the others stay as they are.
pub struct Reader<'a> {
    segments: &'a Segments,
    /// The number of the current segment.
    segment: usize,
    bits: Bits<'a>,
    interval: usize,
    /// MCUs before the next restart marker.
    left: usize,
    /// Restart markers that were due so far.
    restarts: usize,
    data: Data,
}

impl<'a> Reader<'a> {
    /// Starts with the first of `segments`, which restart markers end behind every `interval` MCUs, if that is not 0.
    pub fn new(segments: &'a Segments, interval: usize) -> Result<Self> {
        let bits = segments.bits(0).ok_or_else(|| premature(End::File))?;
        Ok(Reader { segments, segment: 0, bits, interval, left: interval, restarts: 0, data: Data::There })
    }

    /// Reads all rows of MCUs.
    pub fn rows<C: Coder>(
        &mut self,
        level: Level,
        coder: &mut C,
        mut layout: Layout,
        blocks: &mut [Block],
    ) -> Result<()> {
        for _ in 0..layout.down {
            check_cancelled()?;
            self.row(level, coder, &layout, blocks)?;
            layout.next_row();
        }
        Ok(())
    }

    /// Reads one row of MCUs.
    pub fn row<C: Coder>(&mut self, level: Level, coder: &mut C, layout: &Layout, blocks: &mut [Block]) -> Result<()> {
        let outcome = read_row(level, self, coder, layout, blocks);
        // Where the data has run out, whatever was read behind its end is a consequence of that.
        if self.bits.overrun() { Err(premature(self.segments.end(self.segment))) } else { outcome }
    }

    /// What [`read_row`] is compiled of.
    #[inline(always)]
    fn row_inline<C: Coder>(&mut self, coder: &mut C, layout: &Layout, blocks: &mut [Block]) -> Result<()> {
        let mut bits = self.bits;
        let mut outcome = Ok(());
        'row: for mcu in 0..layout.across {
            if self.interval > 0 {
                if self.left == 0 {
                    match self.restarted(bits) {
                        Ok(next) => bits = next,
                        Err(error) => {
                            outcome = Err(error);
                            break 'row;
                        }
                    }
                    coder.restart();
                }
                self.left -= 1;
                if self.data != Data::There {
                    self.pass_lost(coder, layout, mcu, blocks);
                    continue 'row;
                }
            }
            for unit in &layout.units[..layout.count] {
                let Some(block) = blocks.get_mut(unit.first + mcu * unit.step) else {
                    outcome = Err(corrupt("a block outside the image"));
                    break 'row;
                };
                if let Err(invalid) = coder.block(&mut bits, unit, block) {
                    outcome = Err(corrupt(invalid.detail()));
                    break 'row;
                }
            }
        }
        self.bits = bits;
        outcome
    }

    /// Goes over a restart marker, or stays before it if the segment that is due was lost.
    #[cold]
    #[inline(never)]
    fn restarted(&mut self, bits: Bits<'a>) -> Result<Bits<'a>> {
        let expected = self.restarts % 8;
        self.restarts += 1;
        self.left = self.interval;
        loop {
            let end = self.segments.end(self.segment);
            let End::Marker(code @ 0xd0..=0xd7) = end else { return Err(premature(end)) };
            if bits.overrun() {
                return Err(premature(end));
            }
            match (usize::from(code & 7) + 8 - expected) % 8 {
                1 | 2 => {
                    self.data = if self.data == Data::There { Data::Lost } else { Data::Spent };
                    return Ok(Bits::none());
                }
                6 | 7 => self.segment += 1,
                _ => {
                    self.segment += 1;
                    // A marker that comes twice has nothing between.
                    let again = matches!(self.segments.end(self.segment), End::Marker(0xd0..=0xd7));
                    if again && self.segments.is_empty(self.segment) {
                        self.data = Data::Lost;
                        return Ok(Bits::none());
                    }
                    self.data = Data::There;
                    return self.segments.bits(self.segment).ok_or_else(|| premature(end));
                }
            }
        }
    }

    /// Passes by an MCU of a lost segment.
    #[cold]
    #[inline(never)]
    fn pass_lost<C: Coder>(&mut self, coder: &mut C, layout: &Layout, mcu: usize, blocks: &mut [Block]) {
        if self.data == Data::Lost {
            let mut zeros = Bits::none();
            for unit in &layout.units[..layout.count] {
                if let Some(block) = blocks.get_mut(unit.first + mcu * unit.step) {
                    // Zeros that make no sense leave what they made so far.
                    let _ = coder.block(&mut zeros, unit, block);
                }
            }
            self.data = Data::Spent;
        }
    }
}

dispatch! {
    /// Reads one row of MCUs. The shifts of BMI2 spare the loop's longest chain an instruction a shift.
    fn read_row<C: Coder>(
        level: Level,
        reader: &mut Reader<'_>,
        coder: &mut C,
        layout: &Layout,
        blocks: &mut [Block],
    ) -> Result<()> {
        Avx2 | Scalar => reader.row_inline(coder, layout, blocks),
    }
}

/// The error for data that `end` cuts off.
fn premature(end: End) -> ImageError {
    match end {
        End::File => truncated("the file ends before the image does"),
        End::Marker(0xd9) => truncated("the end-of-image marker stands before the image is complete"),
        End::Marker(code) => corrupt(format!("the marker FF{code:02X} stands where image data should")),
    }
}

/// The coder of sequential scans: whole blocks (T.81 F.2.2).
pub struct Sequential<'t> {
    /// By selector.
    dc: [&'t Table; MAX_COMPONENTS],
    /// By selector.
    ac: [(&'t Table, &'t SymbolPairs); MAX_COMPONENTS],
    /// By selector: the last block's DC coefficient.
    predictions: [i32; MAX_COMPONENTS],
}

impl<'t> Sequential<'t> {
    /// With the tables of each selector.
    pub fn new(dc: [&'t Table; MAX_COMPONENTS], ac: [(&'t Table, &'t SymbolPairs); MAX_COMPONENTS]) -> Self {
        Sequential { dc, ac, predictions: [0; MAX_COMPONENTS] }
    }
}

impl Coder for Sequential<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, unit: &Unit, block: &mut Block) -> Result<(), Invalid> {
        let (dc, (ac, pairs)) = (self.dc[unit.selector & 3], self.ac[unit.selector & 3]);
        bits.refill();
        let (_, difference) = dc.coefficient(bits)?;
        let prediction = &mut self.predictions[unit.selector & 3];
        *prediction = prediction.wrapping_add(difference);
        block[0] = *prediction as i16;
        let mut k = 1;
        'block: loop {
            bits.refill();
            for _ in 0..PAIRS_PER_REFILL {
                let pair = pairs.at(bits.peek(LOOKUP_BITS));
                // Behind a block's last coefficient stands the next block.
                if k + usize::from(pair.places[0]) < 63 {
                    bits.consume(pair.total.into());
                    for (place, value) in pair.places.into_iter().zip(pair.values) {
                        block[usize::from(ZIGZAG[k + usize::from(place)])] = value;
                    }
                    k += usize::from(pair.advance);
                } else {
                    bits.refill();
                    k = coefficient(ac, bits, block, k)?;
                    bits.refill();
                }
                if k >= 64 {
                    break 'block;
                }
            }
        }
        // A run of zeros may lead past the end only if no coefficient follows.
        if (65..usize::from(END)).contains(&k) { Err(Invalid::Run) } else { Ok(()) }
    }

    fn restart(&mut self) {
        self.predictions = [0; MAX_COMPONENTS];
    }
}

/// A refill makes 56 bits available.
const PAIRS_PER_REFILL: u32 = 56 / LOOKUP_BITS;

/// Reads the next coefficient that is not zero, from the `k`-th on. Returns the place behind it, [`END`] at the end
/// of the block.
#[inline(always)]
fn coefficient(table: &Table, bits: &mut Bits<'_>, block: &mut Block, k: usize) -> Result<usize, Invalid> {
    let (symbol, value) = table.coefficient(bits)?;
    let k = k + symbol.run() as usize;
    if symbol.size() != 0 {
        block[usize::from(ZIGZAG[k])] = value as i16;
    } else if symbol.run() != 15 {
        return Ok(END.into());
    }
    Ok(k + 1)
}
