//! The coders of progressive scans: parts of coefficients (T.81 annex G).

use super::bits::Bits;
use super::frame::MAX_COMPONENTS;
use super::huffman::{Table, extend};
use super::markers::{Scan, ZIGZAG};
use super::scan::{Block, Coder, Unit};
use super::{Invalid, corrupt};
use crate::image::Result;

/// How far each coefficient is known: the bits that are still to come, or nothing yet.
#[derive(Debug)]
pub struct Progress([[Option<u8>; 64]; MAX_COMPONENTS]);

impl Progress {
    /// Nothing is known.
    pub fn new() -> Self {
        Progress([[None; 64]; MAX_COMPONENTS])
    }

    /// Notes what `scan` sends. Fails unless that follows on what is known: this bounds the number of visits to a block.
    pub fn advance(&mut self, scan: &Scan) -> Result<()> {
        let &Scan { first, last, high, low, .. } = scan;
        let spectrum = if first == 0 { last == 0 } else { first <= last && last < 64 && scan.selectors().len() == 1 };
        if !spectrum || low > 13 || (high != 0 && high != low + 1) {
            return Err(corrupt(format!("a progressive scan of coefficients {first} to {last}, bits {high} to {low}")));
        }
        for selector in scan.selectors() {
            for known in &mut self.0[selector.component][first..=last] {
                if known.map_or(0, u32::from) != high || (known.is_some() && high == 0) {
                    return Err(corrupt(format!(
                        "a scan of coefficients {first} to {last} refines bits that were not sent, or sends them twice"
                    )));
                }
                *known = Some(low as u8);
            }
        }
        Ok(())
    }

    /// Notes a sequential scan, which sends all of its components' coefficients.
    pub fn advance_whole(&mut self, scan: &Scan) -> Result<()> {
        for selector in scan.selectors() {
            if self.complete(selector.component) {
                return Err(corrupt("a second sequential scan of the same component"));
            }
            self.0[selector.component] = [Some(0); 64];
        }
        Ok(())
    }

    /// Whether a component's coefficients are known to the last bit.
    pub fn complete(&self, component: usize) -> bool {
        self.0[component].iter().all(|&known| known == Some(0))
    }

    /// The bits that are still to come of a component's coefficients, in zigzag order; nothing of those that no scan has sent.
    pub fn of(&self, component: usize) -> &[Option<u8>; 64] {
        &self.0[component]
    }
}

/// First scan of DC coefficients.
pub struct DcFirst<'t> {
    /// By selector.
    tables: [&'t Table; MAX_COMPONENTS],
    /// By selector: the last block's coefficient.
    predictions: [i32; MAX_COMPONENTS],
    /// Bits that later scans send.
    low: u32,
}

impl<'t> DcFirst<'t> {
    /// With the table of each selector, and the bits that later scans send.
    pub fn new(tables: [&'t Table; MAX_COMPONENTS], low: u32) -> Self {
        DcFirst { tables, predictions: [0; MAX_COMPONENTS], low }
    }
}

impl Coder for DcFirst<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, unit: &Unit, block: &mut Block) -> Result<(), Invalid> {
        bits.refill();
        let (_, difference) = self.tables[unit.selector & 3].coefficient(bits)?;
        let prediction = &mut self.predictions[unit.selector & 3];
        *prediction = prediction.wrapping_add(difference);
        block[0] = (*prediction << self.low) as i16;
        Ok(())
    }

    fn restart(&mut self) {
        self.predictions = [0; MAX_COMPONENTS];
    }
}

/// Later scan of DC coefficients: one bit each.
pub struct DcRefine {
    /// Bits that later scans send.
    low: u32,
}

impl DcRefine {
    /// With the bits that later scans send.
    pub fn new(low: u32) -> Self {
        DcRefine { low }
    }
}

impl Coder for DcRefine {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, _: &Unit, block: &mut Block) -> Result<(), Invalid> {
        bits.refill();
        block[0] |= (bits.take(1) << self.low) as i16;
        Ok(())
    }

    fn restart(&mut self) {}
}

/// First scan of a band of AC coefficients.
pub struct AcFirst<'t> {
    /// Its table.
    table: &'t Table,
    /// The band in zigzag order.
    first: usize,
    /// Its last coefficient.
    last: usize,
    /// Bits that later scans send.
    low: u32,
    /// Blocks to come without a coefficient.
    empty: u32,
}

impl<'t> AcFirst<'t> {
    /// With its table, the band's first and last coefficient, and the bits that later scans send.
    pub fn new(table: &'t Table, first: usize, last: usize, low: u32) -> Self {
        AcFirst { table, first, last, low, empty: 0 }
    }
}

impl Coder for AcFirst<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, _: &Unit, block: &mut Block) -> Result<(), Invalid> {
        if self.empty > 0 {
            self.empty -= 1;
            return Ok(());
        }
        let mut k = self.first;
        while k <= self.last {
            bits.refill();
            let symbol = self.table.symbol(bits)?;
            let (run, size) = (symbol.run(), symbol.size());
            if size == 0 && run < 15 {
                self.empty = (1 << run) - 1 + bits.take(run);
                return Ok(());
            }
            k += run as usize;
            if size > 0 {
                block[usize::from(ZIGZAG[k])] = (extend(bits.take(size), size) << self.low) as i16;
            }
            k += 1;
        }
        if k > self.last + 1 { Err(Invalid::Run) } else { Ok(()) }
    }

    fn restart(&mut self) {
        self.empty = 0;
    }
}

/// Later scan of a band of AC coefficients: one bit for each that is not zero, and those that become so.
pub struct AcRefine<'t> {
    /// Its table.
    table: &'t Table,
    /// The band in zigzag order.
    first: usize,
    /// Its last coefficient.
    last: usize,
    /// Bits that later scans send.
    low: u32,
    /// Blocks to come in which no coefficient becomes other than zero.
    empty: u32,
}

impl<'t> AcRefine<'t> {
    /// With its table, the band's first and last coefficient, and the bits that later scans send.
    pub fn new(table: &'t Table, first: usize, last: usize, low: u32) -> Self {
        AcRefine { table, first, last, low, empty: 0 }
    }

    /// Passes `zeros` coefficients that are zero from the `k`-th on, and refines the others up to the next zero or the
    /// band's end. Returns where that stands.
    #[inline(always)]
    fn pass(&self, bits: &mut Bits<'_>, block: &mut Block, mut k: usize, mut zeros: u32) -> usize {
        let bit = 1i16 << self.low;
        while k <= self.last {
            let coefficient = &mut block[usize::from(ZIGZAG[k])];
            if *coefficient == 0 {
                if zeros == 0 {
                    break;
                }
                zeros -= 1;
            } else {
                bits.refill();
                // A bit that is there already came with a damaged file: it is not added again.
                if bits.take(1) != 0 && *coefficient & bit == 0 {
                    *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
                }
            }
            k += 1;
        }
        k
    }
}

impl Coder for AcRefine<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, _: &Unit, block: &mut Block) -> Result<(), Invalid> {
        let mut k = self.first;
        if self.empty == 0 {
            while k <= self.last {
                bits.refill();
                let symbol = self.table.symbol(bits)?;
                let (run, size) = (symbol.run(), symbol.size());
                if size == 0 && run < 15 {
                    self.empty = (1 << run) + bits.take(run);
                    break;
                }
                if size > 1 {
                    return Err(Invalid::Refinement);
                }
                let value = match size {
                    0 => 0,
                    _ if bits.take(1) != 0 => 1 << self.low,
                    _ => -1 << self.low,
                };
                k = self.pass(bits, block, k, run);
                if value != 0 {
                    // The run may end behind the band only if nothing follows.
                    if k > self.last {
                        return Err(Invalid::Run);
                    }
                    block[usize::from(ZIGZAG[k])] = value;
                }
                k += 1;
            }
        }
        if self.empty > 0 {
            self.pass(bits, block, k, u32::MAX);
            self.empty -= 1;
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.empty = 0;
    }
}
