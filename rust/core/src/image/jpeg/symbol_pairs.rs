//! Looks up two coefficients at a time.
//!
//! Decoding is a chain: where a code starts is known only once the code before it is. A table of all that the next bits
//! can hold, up to two symbols with their coefficients, makes the chain shorter.

use super::huffman::{LOOKUP_BITS, Spec, Table, extend};

/// The bits that the table looks at. A symbol that lies entirely within them is found by one look-up.
const MASK: u32 = (1 << LOOKUP_BITS) - 1;

/// Up to two symbols and the coefficients behind them.
///
/// There are always two coefficients to store. A symbol that has none stands for the other's, or for a zero where a
/// zero is: storing them takes no decision.
#[derive(Debug, Clone, Copy)]
#[repr(align(8))]
pub struct SymbolPair {
    /// The number of bits of both symbols and their coefficients.
    pub total: u8,
    /// The distance from the next coefficient's place to the one behind the symbols: [`END`] or more where a block ends.
    pub advance: u8,
    /// The distances from the next coefficient's place to the places of the two. The first is [`FAR`] where not even one
    /// symbol lies entirely within the bits.
    pub places: [u8; 2],
    /// The two coefficients.
    pub values: [i16; 2],
}

/// The end of a block adds this to [`SymbolPair::advance`].
pub const END: u8 = 128;

/// A place beyond any in a block.
pub const FAR: u8 = 64;

impl SymbolPair {
    const NONE: SymbolPair = SymbolPair { total: 0, advance: 0, places: [FAR; 2], values: [0; 2] };

    /// Decodes the symbol at the front of `window`, `LOOKUP_BITS` bits of which the first `known` are known.
    #[inline]
    fn single(table: &Table, window: u32, known: u32) -> SymbolPair {
        let symbol = table.short(window);
        let (total, run) = (symbol.total(), symbol.run() as u8);
        if total == 0 || total > known {
            return SymbolPair::NONE;
        }
        let total = total as u8;
        if symbol.size() == 0 {
            let advance = if run == 15 { 16 } else { END };
            return SymbolPair { total, advance, places: [0; 2], values: [0; 2] };
        }
        let value = extend(window >> (LOOKUP_BITS - u32::from(total)), symbol.size()) as i16;
        SymbolPair { total, advance: run + 1, places: [run; 2], values: [value; 2] }
    }

    /// Puts `next` behind `self`.
    #[inline]
    fn and(self, next: SymbolPair) -> SymbolPair {
        let mut both = self;
        both.total += next.total;
        both.advance += next.advance;
        if next.values[0] != 0 {
            both.places[1] = self.advance + next.places[0];
            both.values[1] = next.values[0];
        }
        both
    }
}

/// A table of pairs, by the next `LOOKUP_BITS` bits.
#[derive(Debug)]
pub struct SymbolPairs {
    spec: Spec,
    pairs: [SymbolPair; 1 << LOOKUP_BITS],
}

impl Default for SymbolPairs {
    /// The pairs of the table without codes.
    fn default() -> Self {
        SymbolPairs { spec: Spec::EMPTY, pairs: [SymbolPair::NONE; 1 << LOOKUP_BITS] }
    }
}

impl SymbolPairs {
    /// Replaces the pairs by those of `table`.
    pub fn set(&mut self, table: &Table) {
        if self.spec == *table.spec() {
            return;
        }
        self.spec = *table.spec();
        for (window, pair) in (0..).zip(&mut self.pairs) {
            *pair = SymbolPair::single(table, window, LOOKUP_BITS);
            // A run of 16 zeros stands alone, since only the reader knows whether it leaves anything of the block.
            if pair.values[0] != 0 {
                let total = u32::from(pair.total);
                *pair = pair.and(SymbolPair::single(table, window << total & MASK, LOOKUP_BITS - total));
            }
        }
    }

    /// The pair that the next `LOOKUP_BITS` bits hold.
    #[inline(always)]
    pub fn at(&self, window: u32) -> SymbolPair {
        self.pairs[(window & MASK) as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bits::Segments;
    use super::super::huffman::standard;
    use super::*;

    /// Every window's pair stores what one coefficient at a time gives.
    fn check(spec: &Spec) {
        let table = Table::new(spec, false).unwrap();
        let mut pairs = SymbolPairs::default();
        pairs.set(&table);
        for window in 0..=MASK {
            let pair = pairs.at(window);
            let bytes = (window << (32 - LOOKUP_BITS)).to_be_bytes();
            let stuffed: Vec<u8> =
                bytes.into_iter().flat_map(|b| if b == 0xff { vec![b, 0] } else { vec![b] }).collect();
            let mut segments = Segments::default();
            segments.read(&stuffed, 0, 1);
            let mut bits = segments.bits(0).unwrap();
            bits.refill();
            let (mut want, mut k, mut taken) = ([0; 64], 0, 0);
            while taken < u32::from(pair.total) {
                let (symbol, value) = table.coefficient(&mut bits).unwrap();
                taken += symbol.total();
                k +=
                    if symbol.size() == 0 && symbol.run() != 15 { usize::from(END) } else { symbol.run() as usize + 1 };
                if symbol.size() != 0 {
                    want[k - 1] = value as i16;
                }
            }
            if pair.places[0] == FAR {
                let total = table.short(window).total();
                assert!(total == 0 || total > LOOKUP_BITS, "{window:011b}");
                continue;
            }
            let mut got = [0; 64];
            for (place, value) in pair.places.into_iter().zip(pair.values) {
                got[usize::from(place)] = value;
            }
            assert_eq!((got, usize::from(pair.advance), u32::from(pair.total)), (want, k, taken), "{window:011b}");
        }
    }

    #[test]
    fn pairs_of_the_standard_tables_are_two_coefficients() {
        (0..2).for_each(|slot| check(&standard(true, slot).unwrap()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn pairs_of_any_table_are_two_coefficients(
            wanted in prop::collection::vec(0u8..6, 16),
            symbols in prop::collection::vec(any::<u8>(), 256),
        ) {
            let mut spec = Spec { counts: [0; 16], symbols: symbols.try_into().unwrap() };
            let mut free = 1u32;
            for (count, want) in spec.counts.iter_mut().zip(wanted) {
                free *= 2;
                *count = u32::from(want).min(free - 1) as u8;
                free -= u32::from(*count);
            }
            check(&spec);
        }
    }
}
