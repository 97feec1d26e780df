//! Stored bits to samples.

use half::f16;

use super::layout::Layout;

/// A sample as the image holds it.
pub trait Sample: Copy + Default + Send + Sync {
    /// All samples of one row of a chunk.
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<Self>);
    /// The sample nearest to a number, of so many bits.
    fn nearest(value: f64, bits: u32) -> Self;
    /// The sum, without carry.
    fn plus(self, other: Self) -> Self;
    /// The sample where zero is white.
    fn inverted(self, white: u16) -> Self;
    /// The sample of fewer than 8 bits, spread over 0..=255.
    fn scaled(self, _bits: u32) -> Self {
        self
    }
}

/// Samples of any number of bits up to 16, from the highest bit on.
fn unpack_bits(line: &[u8], bits: u32, mut take: impl FnMut(u16)) {
    let (mut held, mut count) = (0u32, 0);
    for &byte in line {
        held = held << 8 | u32::from(byte);
        count += 8;
        while count >= bits {
            count -= bits;
            take((held >> count & (u32::MAX >> (32 - bits))) as u16);
        }
    }
}

/// Samples of so many whole bytes.
fn unpack_bytes<T, const N: usize>(
    line: &[u8],
    layout: &Layout,
    row: &mut Vec<T>,
    [big, little]: [fn([u8; N]) -> T; 2],
) {
    row.clear();
    let (samples, _) = line.as_chunks::<N>();
    let read = if layout.big_endian { big } else { little };
    row.extend(samples.iter().map(|&bytes| read(bytes)));
}

impl Sample for u8 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<u8>) {
        row.clear();
        match layout.bits {
            8 => row.extend_from_slice(line),
            bits => unpack_bits(line, bits, |sample| row.push(sample as u8)),
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
        let white = u16::from(u8::MAX >> (8 - bits));
        ((u16::from(self) * 255 + white / 2) / white) as u8
    }
}

impl Sample for u16 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<u16>) {
        match layout.bits {
            16 => unpack_bytes(line, layout, row, [u16::from_be_bytes, u16::from_le_bytes]),
            bits => {
                row.clear();
                unpack_bits(line, bits, |sample| row.push(sample));
            }
        }
    }

    fn nearest(value: f64, bits: u32) -> u16 {
        (value.round() as u16).min(u16::MAX >> (16 - bits))
    }

    fn plus(self, other: u16) -> u16 {
        self.wrapping_add(other)
    }

    fn inverted(self, white: u16) -> u16 {
        white - self
    }
}

impl Sample for i16 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<i16>) {
        unpack_bytes(line, layout, row, [i16::from_be_bytes, i16::from_le_bytes]);
    }

    fn nearest(value: f64, _bits: u32) -> i16 {
        value.round() as i16
    }

    fn plus(self, other: i16) -> i16 {
        self.wrapping_add(other)
    }

    fn inverted(self, _white: u16) -> i16 {
        !self
    }
}

/// Differences of floating-point samples are those of the whole numbers that their bits are.
impl Sample for f32 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<f32>) {
        match layout.bits {
            16 => unpack_bytes(
                line,
                layout,
                row,
                [|bytes| f16::from_be_bytes(bytes).to_f32(), |bytes| f16::from_le_bytes(bytes).to_f32()],
            ),
            _ => unpack_bytes(line, layout, row, [f32::from_be_bytes, f32::from_le_bytes]),
        }
    }

    fn nearest(value: f64, _bits: u32) -> f32 {
        value as f32
    }

    fn plus(self, other: f32) -> f32 {
        f32::from_bits(self.to_bits().wrapping_add(other.to_bits()))
    }

    fn inverted(self, _white: u16) -> f32 {
        -self
    }
}

impl Sample for f64 {
    fn unpack(line: &[u8], layout: &Layout, row: &mut Vec<f64>) {
        unpack_bytes(line, layout, row, [f64::from_be_bytes, f64::from_le_bytes]);
    }

    fn nearest(value: f64, _bits: u32) -> f64 {
        value
    }

    fn plus(self, other: f64) -> f64 {
        f64::from_bits(self.to_bits().wrapping_add(other.to_bits()))
    }

    fn inverted(self, _white: u16) -> f64 {
        -self
    }
}

/// Undoes the differences of floating-point samples (Adobe's technical note 3): the bytes of a row, sorted by their weight, the
/// highest first, were stored as differences from the byte of the left neighbor. The samples come in the file's byte order.
pub fn undo_float_differences(line: &mut [u8], to: &mut [u8], layout: &Layout) {
    for i in layout.bands_in_chunk..line.len() {
        line[i] = line[i].wrapping_add(line[i - layout.bands_in_chunk]);
    }
    let size = layout.bits as usize / 8;
    let count = line.len() / size;
    for (i, sample) in to.chunks_exact_mut(size).enumerate() {
        for (weight, byte) in sample.iter_mut().enumerate() {
            let weight = if layout.big_endian { weight } else { size - 1 - weight };
            *byte = line[weight * count + i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_from_the_highest_on() {
        for bits in 1..=16u32 {
            let samples: Vec<u16> =
                (0..41u32).map(|i| ((i * 40_503) >> 3) as u16 & (u16::MAX >> (16 - bits))).collect();
            let text: String =
                samples.iter().map(|sample| format!("{sample:0width$b}", width = bits as usize)).collect();
            let line: Vec<u8> = text
                .as_bytes()
                .chunks(8)
                .map(|byte| byte.iter().enumerate().fold(0, |sum, (i, bit)| sum | (bit - b'0') << (7 - i)))
                .collect();
            let mut read = Vec::new();
            unpack_bits(&line, bits, |sample| read.push(sample));
            assert_eq!(read[..41], samples, "{bits} bits");
        }
    }

    #[test]
    fn few_bits_span_all_levels() {
        for bits in 1..8 {
            let white = u8::MAX >> (8 - bits);
            let levels: Vec<u8> = (0..=white).map(|sample| sample.scaled(bits)).collect();
            assert!(levels[0] == 0 && levels[white as usize] == 255 && levels.is_sorted());
        }
    }
}
