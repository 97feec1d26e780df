//! Bits of an entropy-coded segment, without its stuffed bytes, up to the marker that ends it (T.81 F.2.2.5).

/// Bits are taken from the front of `buffer`, most significant first. Past the end come zeros, which are counted.
///
/// The state is `Copy` and refilled by value: a loop that works on its own copy keeps it in registers.
#[derive(Debug, Clone, Copy)]
pub struct Bits<'a> {
    data: &'a [u8],
    /// The next byte to load; never past a marker.
    position: usize,
    buffer: u64,
    /// Bits in `buffer`, padding included.
    count: u32,
    /// Zero bits that were fed because the data had ended.
    padding: u64,
}

/// What stands where the entropy-coded data stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The marker with this code.
    Marker(u8),
    /// The end of the file.
    File,
}

impl<'a> Bits<'a> {
    /// Starts at byte `position` of `data`.
    pub fn new(data: &'a [u8], position: usize) -> Self {
        Bits { data, position, buffer: 0, count: 0, padding: 0 }
    }

    /// Where the bytes end that were loaded: no marker stands before it.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether more bits were taken than the data holds.
    pub fn overrun(&self) -> bool {
        self.padding > u64::from(self.count)
    }

    /// Makes 32 bits available: a code (16 at most) and its extra bits (15 at most).
    #[inline(always)]
    pub fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(chunk) = self.data.get(self.position..).and_then(<[u8]>::first_chunk) {
            let word = u64::from_be_bytes(*chunk);
            if !has_ff(word) {
                // The bits behind the last whole byte are loaded again later, to the same place.
                self.buffer |= word >> self.count;
                let bytes = (64 - self.count) / 8;
                self.position += bytes as usize;
                self.count += bytes * 8;
                return;
            }
        }
        *self = self.refilled_bytewise();
    }

    #[cold]
    #[inline(never)]
    fn refilled_bytewise(mut self) -> Self {
        self.buffer &= !(u64::MAX >> self.count);
        while self.count <= 56 {
            let mut next = self.position + 1;
            let byte = match self.data.get(self.position) {
                Some(0xff) => {
                    while self.data.get(next) == Some(&0xff) {
                        next += 1;
                    }
                    if self.data.get(next) == Some(&0) { Some(0xff) } else { None }
                }
                other => other.copied(),
            };
            match byte {
                Some(byte) => {
                    self.position = if byte == 0xff { next + 1 } else { next };
                    self.buffer |= u64::from(byte) << (56 - self.count);
                }
                None => self.padding += 8,
            }
            self.count += 8;
        }
        self
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

    /// What follows the entropy-coded data: bytes before the next marker are skipped.
    pub fn end(&self) -> End {
        match next_marker(self.data, self.position) {
            Some((code, _)) => End::Marker(code),
            None => End::File,
        }
    }

    /// The bits behind the next marker if that is restart marker `number`; otherwise what stands there.
    pub fn restarted(&self, number: u8) -> Result<Self, End> {
        match next_marker(self.data, self.position) {
            Some((code, next)) if code == 0xd0 + number => Ok(Bits::new(self.data, next)),
            Some((code, _)) => Err(End::Marker(code)),
            None => Err(End::File),
        }
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

/// Whether one of the eight bytes is 0xFF.
#[inline(always)]
fn has_ff(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of the complement is zero exactly when a borrow or its own top bit shows in it.
    (!word).wrapping_sub(LOW) & word & HIGH != 0
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
            let mut bits = Bits::new(&data, 0);
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
        fn a_byte_of_ones_is_found_wherever_it_stands(word in any::<u64>(), at in 0usize..9) {
            let mut bytes = word.to_le_bytes();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = 0xff;
            }
            prop_assert_eq!(has_ff(u64::from_le_bytes(bytes)), bytes.contains(&0xff));
        }
    }

    #[test]
    fn markers_are_found_behind_garbage_and_fill_bytes() {
        assert_eq!(next_marker(&[1, 2, 0xff, 0, 3, 0xff, 0xff, 0xd9, 7], 0), Some((0xd9, 8)));
        assert_eq!(next_marker(&[0xff, 0xff], 0), None);
        assert_eq!(next_marker(&[], 3), None);
    }
}
