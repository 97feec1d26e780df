//! Huffman tables, and the decoding of one code by one look-up (T.81 annexes C and F.2.2.3).

use super::bits::Bits;
use super::{Invalid, corrupt};
use crate::image::Result;

/// Codes up to this length are decoded by one look-up. Longer ones are less than 1 % of a photograph's.
pub const LOOKUP_BITS: u32 = 11;

/// A table as a DHT segment defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// How many codes there are of each length, 1 to 16.
    pub counts: [u8; 16],
    /// The symbols in the order of their codes.
    pub symbols: [u8; 256],
}

impl Spec {
    /// No codes.
    pub const EMPTY: Spec = Spec { counts: [0; 16], symbols: [0; 256] };
}

/// A decoded symbol: `run` zero coefficients, then one of `size` bits.
#[derive(Debug, Clone, Copy)]
pub struct Symbol(u16);

impl Symbol {
    /// `length` bits of code that stand for `symbol`.
    fn new(symbol: u8, length: u32) -> Self {
        let (run, size) = (u16::from(symbol >> 4), u16::from(symbol & 15));
        Symbol((length as u16 + size) | size << 5 | run << 9)
    }

    /// Bits of the code and of the coefficient behind it together; 0 where no code is known.
    #[inline(always)]
    pub fn total(self) -> u32 {
        u32::from(self.0 & 31)
    }

    /// Bits of the coefficient behind the code.
    #[inline(always)]
    pub fn size(self) -> u32 {
        u32::from(self.0 >> 5 & 15)
    }

    /// The upper half of the symbol.
    #[inline(always)]
    pub fn run(self) -> u32 {
        u32::from(self.0 >> 9)
    }
}

/// A table made ready for decoding.
#[derive(Debug)]
pub struct Table {
    spec: Spec,
    /// By the next `LOOKUP_BITS` bits.
    lookup: [Symbol; 1 << LOOKUP_BITS],
    /// By length: the first 16-bit prefix that lies behind all codes of this length and shorter.
    limits: [u32; 17],
    /// By length: what to add to a code for its symbol's place.
    offsets: [i32; 17],
}

impl Default for Table {
    /// The table without codes.
    fn default() -> Self {
        Table { spec: Spec::EMPTY, lookup: [Symbol(0); 1 << LOOKUP_BITS], limits: [0; 17], offsets: [0; 17] }
    }
}

impl Table {
    /// Makes `spec` ready.
    pub fn new(spec: &Spec, dc: bool) -> Result<Self> {
        let mut table = Table { spec: *spec, ..Table::default() };
        let (mut code, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(spec.counts[length as usize - 1]);
            table.offsets[length as usize] = place as i32 - code as i32;
            let Some(symbols) = spec.symbols.get(place..place + count) else {
                return Err(corrupt("a Huffman table of more than 256 codes"));
            };
            // No code may be all ones.
            if count > 0 && code + count as u32 >= 1 << length {
                return Err(corrupt("a Huffman table with more codes than their lengths allow"));
            }
            if dc && symbols.iter().any(|&symbol| symbol > 15) {
                return Err(corrupt("a Huffman table for DC differences of more than 15 bits"));
            }
            if length <= LOOKUP_BITS {
                let copies = 1usize << (LOOKUP_BITS - length);
                let start = (code as usize) * copies;
                let slots = table.lookup[start..start + count * copies].chunks_exact_mut(copies);
                slots.zip(symbols).for_each(|(slots, &symbol)| slots.fill(Symbol::new(symbol, length)));
            }
            code += count as u32;
            place += count;
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// What it was made of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The symbol of the code that the `LOOKUP_BITS` bits of `window` start with; of no bits if the code is longer.
    #[inline]
    pub fn short(&self, window: u32) -> Symbol {
        self.lookup[window as usize]
    }

    /// The symbol of the next code, which stays in place. Needs 25 bits, and finds more by itself.
    #[inline(always)]
    fn look(&self, bits: &mut Bits<'_>) -> Result<Symbol, Invalid> {
        let symbol = self.short(bits.peek(LOOKUP_BITS));
        if symbol.total() != 0 {
            return Ok(symbol);
        }
        bits.refill();
        // Where data runs out within a code, taking the code shows that it did.
        self.look_long(bits.peek(16)).inspect_err(|_| bits.consume(16))
    }

    #[cold]
    #[inline(never)]
    fn look_long(&self, prefix: u32) -> Result<Symbol, Invalid> {
        let longer = LOOKUP_BITS + 1..=16;
        let length = longer.into_iter().find(|&n| prefix < self.limits[n as usize]).ok_or(Invalid::Code)?;
        let place = (prefix >> (16 - length)) as i32 + self.offsets[length as usize];
        let symbol = usize::try_from(place).ok().and_then(|place| self.spec.symbols.get(place));
        symbol.map(|&symbol| Symbol::new(symbol, length)).ok_or(Invalid::Code)
    }

    /// Takes one code.
    #[inline(always)]
    pub fn symbol(&self, bits: &mut Bits<'_>) -> Result<Symbol, Invalid> {
        let symbol = self.look(bits)?;
        bits.consume(symbol.total() - symbol.size());
        Ok(symbol)
    }

    /// Takes one code and the coefficient behind it. [`Bits::refill`] makes enough bits available for two of them.
    #[inline(always)]
    pub fn coefficient(&self, bits: &mut Bits<'_>) -> Result<(Symbol, i32), Invalid> {
        let symbol = self.look(bits)?;
        // The value is cut out of the bits as they stood: the next code need not wait for it.
        let value = extend(bits.peek(symbol.total()), symbol.size());
        bits.consume(symbol.total());
        Ok((symbol, value))
    }
}

/// The signed value that the lowest `size` bits of `bits` stand for (T.81 table F.1, figure F.12).
#[inline(always)]
pub fn extend(bits: u32, size: u32) -> i32 {
    let mask = (1u32 << size) - 1;
    let magnitude = bits & mask;
    // A leading zero marks a negative value, counted from the bottom of its range.
    let negative = if magnitude > mask >> 1 { 0 } else { mask };
    magnitude.wrapping_sub(negative) as i32
}

/// The tables of T.81 annex K.3 by class (DC, AC) and slot, for streams that leave theirs out, as Motion JPEG does.
pub fn standard(ac: bool, slot: usize) -> Option<Spec> {
    let (counts, symbols): ([u8; 16], &[u8]) = match (ac, slot) {
        (false, 0) => ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &DC_SYMBOLS),
        (false, 1) => ([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &DC_SYMBOLS),
        (true, 0) => ([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d], &LUMA_AC_SYMBOLS),
        (true, 1) => ([0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77], &CHROMA_AC_SYMBOLS),
        _ => return None,
    };
    let mut spec = Spec { counts, symbols: [0; 256] };
    spec.symbols[..symbols.len()].copy_from_slice(symbols);
    Some(spec)
}

const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

#[rustfmt::skip]
const LUMA_AC_SYMBOLS: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
    0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[rustfmt::skip]
const CHROMA_AC_SYMBOLS: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
    0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bits::Segments;
    use super::*;

    /// Codes by the book: T.81 figures C.1 to C.3.
    fn codes(spec: &Spec) -> Vec<(u32, u32, u8)> {
        let (mut code, mut place, mut codes) = (0, 0, Vec::new());
        for (i, &count) in spec.counts.iter().enumerate() {
            for _ in 0..count {
                codes.push((code, i as u32 + 1, spec.symbols[place]));
                code += 1;
                place += 1;
            }
            code <<= 1;
        }
        codes
    }

    fn check(spec: &Spec, dc: bool) {
        let table = Table::new(spec, dc).unwrap();
        for (code, length, symbol) in codes(spec) {
            let size = u32::from(symbol & 15);
            let word = (u64::from(code) << (64 - length)) | (0x5555_5555_5555_5555 >> length);
            // Stuff the bytes, as a file has them.
            let data: Vec<u8> =
                word.to_be_bytes().into_iter().flat_map(|b| if b == 0xff { vec![b, 0] } else { vec![b] }).collect();
            let mut segments = Segments::default();
            segments.read(&data, 0, 1);
            let mut bits = segments.bits(0).unwrap();
            bits.refill();
            let mut whole = bits;
            let got = table.symbol(&mut bits).unwrap();
            assert_eq!((got.run() << 4 | got.size()) as u8, symbol);
            let rest = bits.take(size);
            let (again, value) = table.coefficient(&mut whole).unwrap();
            assert_eq!((again.run(), again.size(), value), (got.run(), size, extend(rest, size)));
            assert_eq!(whole.peek(8), bits.peek(8));
        }
    }

    #[test]
    fn standard_tables_decode_their_own_codes() {
        for slot in 0..2 {
            check(&standard(false, slot).unwrap(), true);
            check(&standard(true, slot).unwrap(), false);
        }
        assert!(standard(true, 2).is_none());
    }

    #[test]
    fn values_extend_as_table_f1_says() {
        assert_eq!(extend(0, 0), 0);
        assert_eq!([extend(0, 1), extend(1, 1)], [-1, 1]);
        assert_eq!([0, 1, 2, 3].map(|v| extend(v, 2)), [-3, -2, 2, 3]);
        assert_eq!([extend(0, 15), extend(0x7fff, 15), extend(0x4000, 15)], [-32767, 32767, 16384]);
    }

    #[test]
    fn codes_that_no_table_holds_are_refused() {
        let mut spec = Spec::EMPTY;
        let empty = Table::new(&spec, false).unwrap();
        let mut segments = Segments::default();
        segments.read(&[0; 8], 0, 1);
        let mut bits = segments.bits(0).unwrap();
        bits.refill();
        assert!(empty.symbol(&mut bits).is_err());
        spec.counts[0] = 2;
        assert!(Table::new(&spec, false).is_err(), "all ones is no code");
        spec.counts[0] = 0;
        spec.counts[15] = 255;
        spec.counts[14] = 2;
        assert!(Table::new(&spec, false).is_err(), "257 codes");
        let mut wide = Spec { counts: [0; 16], symbols: [16; 256] };
        wide.counts[3] = 1;
        assert!(Table::new(&wide, true).is_err() && Table::new(&wide, false).is_ok());
    }

    proptest! {
        #[test]
        fn any_valid_table_decodes_its_own_codes(
            wanted in prop::collection::vec(0u8..40, 16),
            symbols in prop::collection::vec(any::<u8>(), 256),
        ) {
            // Cut the counts down to what fits.
            let mut spec = Spec::EMPTY;
            spec.symbols.copy_from_slice(&symbols);
            let (mut free, mut left) = (1u32, 256);
            for (count, want) in spec.counts.iter_mut().zip(wanted) {
                free *= 2;
                *count = u32::from(want).min(free - 1).min(left) as u8;
                free -= u32::from(*count);
                left -= u32::from(*count);
            }
            check(&spec, false);
        }
    }
}
