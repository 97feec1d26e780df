//! Stored bits to samples.

use super::layout::Layout;

/// A sample as the image holds it.
pub trait Sample: Copy + Default {
    /// All samples of one row of a chunk.
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<Self>);
    /// The sample nearest to a number, of so many bits.
    fn nearest(value: f64, bits: u32) -> Self;
    /// The sum, without carry.
    fn plus(self, other: Self) -> Self;
    /// The sample where zero is white.
    fn inverted(self, white: u16) -> Self;
    /// The sample of fewer than 8 bits, spread over 0..=255.
    fn scaled(self, bits: u32) -> Self;
}

impl Sample for u8 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<u8>) {
        row.clear();
        match layout.bits {
            8 => row.extend_from_slice(line),
            bits => {
                let mask = u8::MAX >> (8 - bits);
                // The first sample is in the highest bits.
                let samples = |byte: &u8| {
                    let byte = *byte;
                    (0..8 / bits).rev().map(move |place| byte >> (place * bits) & mask)
                };
                row.extend(line.iter().flat_map(samples));
            }
        }
    }

    fn nearest(value: f64, bits: u32) -> u8 {
        (value.round() as u8).min(u8::MAX >> (8 - bits))
    }

    fn plus(self, other: u8) -> u8 {
        self.wrapping_add(other)
    }

    fn inverted(self, white: u16) -> u8 {
        white as u8 - self
    }

    fn scaled(self, bits: u32) -> u8 {
        // 255 is a multiple of the largest sample of 1, 2 and 4 bits.
        self * (u8::MAX / (u8::MAX >> (8 - bits)))
    }
}

impl Sample for u16 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<u16>) {
        row.clear();
        let (pairs, _) = line.as_chunks::<2>();
        if layout.big_endian {
            row.extend(pairs.iter().map(|&pair| u16::from_be_bytes(pair)));
        } else {
            row.extend(pairs.iter().map(|&pair| u16::from_le_bytes(pair)));
        }
    }

    fn nearest(value: f64, _bits: u32) -> u16 {
        value.round() as u16
    }

    fn plus(self, other: u16) -> u16 {
        self.wrapping_add(other)
    }

    fn inverted(self, white: u16) -> u16 {
        white - self
    }

    fn scaled(self, _bits: u32) -> u16 {
        self
    }
}
