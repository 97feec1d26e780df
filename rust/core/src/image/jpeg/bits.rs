//! The bits of a scan's entropy-coded data (T.81 B.1.1.5, F.2.2.5).

/// A scan's data without its stuffed bytes: segments that restart markers end, the last one some other marker.
#[derive(Debug, Default)]
pub struct Segments {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    start: usize,
    length: usize,
    end: End,
}

/// What stands where a segment stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The marker with this code.
    Marker(u8),
    /// The end of the file.
    File,
}

/// Zeros behind each segment: what a load of eight bytes may reach.
const PADDING: usize = 8;

impl Segments {
    /// Reads the scan whose data starts at `position` of `data` and has `most` segments at most. Returns where to look
    /// for the marker behind it.
    pub fn read(&mut self, data: &[u8], mut position: usize, most: usize) -> usize {
        self.bytes.clear();
        self.segments.clear();
        self.bytes.reserve(data.len() - position + PADDING);
        loop {
            let start = self.bytes.len();
            let (end, next) = self.unstuff(data, position);
            self.segments.push(Segment { start, length: self.bytes.len() - start, end });
            self.bytes.extend([0; PADDING]);
            match end {
                End::File => return next,
                End::Marker(0xd0..=0xd7) if self.segments.len() < most => position = next,
                // The marker itself takes two bytes.
                End::Marker(_) => return next - 2,
            }
        }
    }

    /// Copies the data up to the next marker. Returns that, and the position behind it.
    fn unstuff(&mut self, data: &[u8], mut position: usize) -> (End, usize) {
        loop {
            let plain = find_ff(&data[position..]);
            self.bytes.extend_from_slice(&data[position..position + plain]);
            position += plain;
            // Any number of 0xFF may stand before a marker's code, or before the zero that makes one of them data.
            let Some(fill) = data[position..].iter().position(|&byte| byte != 0xff) else {
                return (End::File, data.len());
            };
            position += fill + 1;
            match data[position - 1] {
                0 => self.bytes.push(0xff),
                code => return (End::Marker(code), position),
            }
        }
    }

    /// The bits of the `number`-th segment. There is always a first.
    pub fn bits(&self, number: usize) -> Option<Bits<'_>> {
        let &Segment { start, length, .. } = self.segments.get(number)?;
        let data = self.bytes.get(start..start + length + PADDING)?;
        Some(Bits { data, position: 0, buffer: 0, count: 0 })
    }

    /// Forgets the scan, and gives back all memory for its data but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(bytes);
        self.segments.clear();
        self.segments.shrink_to(bytes / size_of::<Segment>());
    }

    /// Whether the `number`-th segment is there and holds nothing.
    pub fn is_empty(&self, number: usize) -> bool {
        self.segments.get(number).is_some_and(|segment| segment.length == 0)
    }

    /// What ends the `number`-th segment.
    pub fn end(&self, number: usize) -> End {
        self.segments.get(number).map_or(End::File, |segment| segment.end)
    }
}

/// Bits are taken from the front of `buffer`, most significant first. Behind the data come zeros.
///
/// The state is `Copy`: a loop that works on its own copy keeps it in registers.
#[derive(Debug, Clone, Copy)]
pub struct Bits<'a> {
    /// A segment and its padding.
    data: &'a [u8],
    /// The next byte to load; past the end when bits were taken that are not there.
    position: usize,
    buffer: u64,
    /// Bits in `buffer`. Those behind them are either zero or already what they will be.
    count: u32,
}

impl Bits<'_> {
    /// No data: zeros.
    pub fn none() -> Bits<'static> {
        Bits { data: &[0; PADDING], position: 0, buffer: 0, count: 0 }
    }

    /// Whether more bits were taken than there are.
    pub fn overrun(&self) -> bool {
        self.position * 8 > (self.data.len() - PADDING) * 8 + self.count as usize
    }

    /// Makes 56 bits available: two codes of up to 11 bits with up to 15 bits behind each, or one of any length.
    #[inline(always)]
    pub fn refill(&mut self) {
        let loaded = self.data.get(self.position..).and_then(<[u8]>::first_chunk);
        self.buffer |= loaded.map_or(0, |&bytes| u64::from_be_bytes(bytes)) >> self.count;
        self.position += (63 - self.count as usize) / 8;
        self.count |= 56;
    }

    /// The next `n` bits, 1 to 32, still in place.
    #[inline(always)]
    pub fn peek(&self, n: u32) -> u32 {
        (self.buffer >> (64 - n)) as u32
    }

    /// Drops `n` bits that [`Bits::refill`] has made available.
    #[inline(always)]
    pub fn consume(&mut self, n: u32) {
        self.buffer <<= n;
        self.count -= n;
    }

    /// The next `n` bits, 0 to 32, which [`Bits::refill`] has made available.
    #[inline(always)]
    pub fn take(&mut self, n: u32) -> u32 {
        let bits = (self.buffer >> 32 >> (32 - n)) as u32;
        self.consume(n);
        bits
    }
}

/// The code of the first marker at or behind `position`, and the position behind it. Fill bytes and bytes that belong to
/// no marker are skipped.
pub fn next_marker(data: &[u8], mut position: usize) -> Option<(u8, usize)> {
    loop {
        position += data.get(position..)?.iter().position(|&byte| byte == 0xff)?;
        position += data.get(position..)?.iter().position(|&byte| byte != 0xff)?;
        let code = *data.get(position)?;
        position += 1;
        if code != 0 {
            return Some((code, position));
        }
    }
}

/// The place of the first 0xFF, or the length.
fn find_ff(data: &[u8]) -> usize {
    let (words, rest) = data.as_chunks();
    for (i, word) in words.iter().enumerate() {
        let ones = bytes_of_ones(u64::from_le_bytes(*word));
        if ones != 0 {
            return 8 * i + ones.trailing_zeros() as usize / 8;
        }
    }
    8 * words.len() + rest.iter().position(|&byte| byte == 0xff).unwrap_or(rest.len())
}

/// Not zero if one of the eight bytes is 0xFF; the lowest bit that is set is the top bit of the first such byte.
#[inline(always)]
fn bytes_of_ones(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of the complement is zero exactly when a borrow but not its own top bit shows in it.
    (!word).wrapping_sub(LOW) & word & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data bytes of a segment, the slow way.
    fn unstuffed(data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut i = 0;
        while i < data.len() {
            let mut next = i + 1;
            if data[i] == 0xff {
                while data.get(next) == Some(&0xff) {
                    next += 1;
                }
                if data.get(next) != Some(&0) {
                    break;
                }
                next += 1;
            }
            bytes.push(data[i]);
            i = next;
        }
        bytes
    }

    proptest! {
        #[test]
        fn bits_are_those_of_the_unstuffed_bytes(
            data in prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(0xff), 1 => Just(0)], 0..200),
            sizes in prop::collection::vec(0u32..=31, 1..200),
        ) {
            let bytes = unstuffed(&data);
            let bit = |i: usize| bytes.get(i / 8).map_or(0, |b| u32::from(b >> (7 - i % 8) & 1));
            let mut segments = Segments::default();
            segments.read(&data, 0, 1);
            let mut bits = segments.bits(0).unwrap();
            let mut at = 0;
            for n in sizes {
                bits.refill();
                let want = (at..at + n as usize).fold(0, |v, i| v << 1 | bit(i));
                if n > 0 {
                    prop_assert_eq!(bits.peek(n), want);
                }
                prop_assert_eq!(bits.take(n), want);
                at += n as usize;
                prop_assert_eq!(bits.overrun(), at > bytes.len() * 8);
            }
        }

        #[test]
        fn the_first_byte_of_ones_is_found(mut data in prop::collection::vec(any::<u8>(), 0..40), at in 0usize..80) {
            if let Some(byte) = data.get_mut(at) {
                *byte = 0xff;
            }
            let want = data.iter().position(|&byte| byte == 0xff).unwrap_or(data.len());
            prop_assert_eq!(find_ff(&data), want);
        }
    }

    #[test]
    fn restart_markers_end_segments() {
        let data = [1, 0xff, 0, 2, 0xff, 0xff, 0xd3, 4, 0xff, 0xd9, 5];
        let mut segments = Segments::default();
        assert_eq!(segments.read(&data, 0, 2), 8);
        assert_eq!(segments.bytes, [&[1, 0xff, 2][..], &[0; 8], &[4], &[0; 8]].concat());
        assert_eq!([segments.end(0), segments.end(1)], [End::Marker(0xd3), End::Marker(0xd9)]);
        assert!(segments.bits(2).is_none());
        assert_eq!(segments.read(&data, 0, 1), 5, "no more segments than MCUs need");
        assert_eq!(segments.read(&data[..9], 7, 1), 9);
        assert_eq!((segments.end(0), &segments.bytes[..1]), (End::File, &[4][..]));
    }

    #[test]
    fn markers_are_found_behind_garbage_and_fill_bytes() {
        assert_eq!(next_marker(&[1, 2, 0xff, 0, 3, 0xff, 0xff, 0xd9, 7], 0), Some((0xd9, 8)));
        assert_eq!(next_marker(&[0xff, 0xff], 0), None);
        assert_eq!(next_marker(&[], 3), None);
    }
}
