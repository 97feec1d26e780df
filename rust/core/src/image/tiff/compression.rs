//! Decompression of strips and tiles.

use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use weezl::decode::Decoder;
use weezl::{BitOrder, LzwStatus};

use super::{Result, corrupt, unsupported};
use crate::image::memory::Memory;

/// How strips and tiles are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZW.
    Lzw,
    /// zlib.
    Deflate,
    /// Run lengths of bytes.
    PackBits,
    /// Zstandard.
    Zstd,
    /// A JPEG of each strip or tile. [`super::jpeg`] reads it.
    Jpeg,
}

impl Compression {
    /// The compression that the tag's value stands for.
    pub fn from_code(code: u64) -> Result<Self> {
        let name = match code {
            1 => return Ok(Self::None),
            5 => return Ok(Self::Lzw),
            8 | 32946 => return Ok(Self::Deflate),
            32773 => return Ok(Self::PackBits),
            50000 => return Ok(Self::Zstd),
            7 => return Ok(Self::Jpeg),
            2..=4 => "fax",
            6 => "JPEG compression as it was before 1995",
            9 | 10 => "JBIG",
            33003 | 33005 | 34712 => "JPEG 2000",
            34887 => "LERC",
            34892 => "lossy JPEG",
            34925 => "LZMA",
            50001 => "WebP",
            50002 | 52546 => "JPEG XL",
            _ => return Err(unsupported(format!("compression {code}; use DEFLATE, ZSTD, LZW, JPEG or none"))),
        };
        Err(unsupported(format!("{name} inside TIFF; use DEFLATE, ZSTD, LZW, JPEG or none")))
    }

    /// The most bytes that a compressed byte can stand for.
    pub fn max_ratio(self) -> u64 {
        match self {
            Self::None => 1,
            // 12 bits can stand for a string as long as the table has codes.
            Self::Lzw => 4096 * 2 / 3,
            // A match of 258 bytes takes two bits.
            Self::Deflate => 258 * 4,
            Self::PackBits => 64,
            // A block of 128 KiB of one value takes four bytes.
            Self::Zstd => (128 << 10) / 4,
            // Blocks of no more than their first coefficients, at two bits, the colors of 16 of them in two.
            Self::Jpeg => 2048,
        }
    }

    /// Whether samples may be stored as differences.
    pub fn predicts(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate | Self::Zstd)
    }
}

/// Unpacks strips and tiles one after the other. A file may have millions of them: what unpacking one takes is kept for the
/// next.
pub struct Unpacker {
    compression: Compression,
    /// Bytes are stored with their bits in reverse.
    reversed: bool,
    source: Vec<u8>,
    buffer: Vec<u8>,
    inflate: Decompress,
    lzw: Decoder,
    zstd: FrameDecoder,
}

impl Unpacker {
    /// For data of that compression, whose bytes may be `reversed`.
    pub fn new(compression: Compression, reversed: bool) -> Self {
        let lzw = Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
        let (inflate, zstd) = (Decompress::new(true), FrameDecoder::new());
        Unpacker { compression, reversed, source: Vec::new(), buffer: Vec::new(), inflate, lzw, zstd }
    }

    /// The first `size` bytes that `data` holds. Writers may fill up the last strip with rows that lie outside the image.
    pub fn unpack<'a>(&'a mut self, data: &'a [u8], size: usize, memory: &mut Memory) -> Result<&'a [u8]> {
        let data = if self.reversed {
            self.source.clear();
            memory.resize(&mut self.source, data.len(), 0)?;
            self.source.iter_mut().zip(data).for_each(|(to, from)| *to = from.reverse_bits());
            &self.source
        } else {
            data
        };
        if self.compression == Compression::None {
            return Ok(&data[..size]);
        }
        self.buffer.clear();
        if size > self.buffer.capacity() {
            memory.resize(&mut self.buffer, size, 0)?;
        }
        self.buffer.resize(size, 0);
        let filled = match self.compression {
            Compression::Lzw => unpack_lzw(&mut self.lzw, data, &mut self.buffer)?,
            Compression::Deflate => unpack_deflate(&mut self.inflate, data, &mut self.buffer)?,
            Compression::Zstd => {
                memory.probe(2 * size)?;
                unpack_zstd(&mut self.zstd, data, &mut self.buffer)?
            }
            _ => unpack_packbits(data, &mut self.buffer),
        };
        if filled < size {
            return Err(corrupt(format!("a strip or tile of {filled} bytes in place of {size}")));
        }
        Ok(&self.buffer)
    }
}

fn unpack_lzw(decoder: &mut Decoder, mut data: &[u8], out: &mut [u8]) -> Result<usize> {
    // Before TIFF 6.0 codes were written from the low bit: such streams start with a clear code in that order.
    if let [0, second, ..] = data
        && second & 1 == 1
    {
        return Err(unsupported("LZW compression as it was before TIFF 6.0"));
    }
    decoder.reset();
    let mut filled = 0;
    while filled < out.len() {
        let step = decoder.decode_bytes(data, &mut out[filled..]);
        data = &data[step.consumed_in..];
        filled += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::Done | LzwStatus::NoProgress) => break,
            Err(error) => return Err(corrupt(format!("LZW data: {error}"))),
        }
    }
    Ok(filled)
}

fn unpack_deflate(decoder: &mut Decompress, data: &[u8], out: &mut [u8]) -> Result<usize> {
    // Straight into place, and with the checksum, if nothing follows the rows.
    decoder.reset(true);
    if let Ok(Status::StreamEnd) = decoder.decompress(data, out, FlushDecompress::Finish) {
        return Ok(decoder.total_out() as usize);
    }
    decoder.reset(true);
    let filled = inflate(decoder, data, out)?;
    if filled == out.len() {
        // Either rows outside the image follow, or the checksum.
        let rest = &data[decoder.total_in() as usize..];
        inflate(decoder, rest, &mut [0])?;
    }
    Ok(filled)
}

/// Goes on until `out` is full or `data` ends. Returns how many bytes came.
fn inflate(decoder: &mut Decompress, data: &[u8], out: &mut [u8]) -> Result<usize> {
    let start = (decoder.total_in(), decoder.total_out());
    loop {
        let read = (decoder.total_in() - start.0) as usize;
        let filled = (decoder.total_out() - start.1) as usize;
        if filled == out.len() {
            return Ok(filled);
        }
        let status = decoder.decompress(&data[read..], &mut out[filled..], FlushDecompress::None);
        let now = ((decoder.total_in() - start.0) as usize, (decoder.total_out() - start.1) as usize);
        match status {
            Err(error) => return Err(corrupt(format!("DEFLATE data: {error}"))),
            Ok(Status::StreamEnd) => return Ok(now.1),
            Ok(_) if now == (read, filled) => return Ok(filled),
            Ok(_) => {}
        }
    }
}

/// Blocks of 128 KiB that may follow the rows of the image.
const BLOCKS_BEHIND: usize = 64;

fn unpack_zstd(decoder: &mut FrameDecoder, mut data: &[u8], out: &mut [u8]) -> Result<usize> {
    let wrong = |error: &dyn std::fmt::Display| corrupt(format!("ZSTD data: {error}"));
    decoder.init(&mut data).map_err(|error| wrong(&error))?;
    for strategy in [BlockDecodingStrategy::UptoBytes(out.len()), BlockDecodingStrategy::UptoBlocks(BLOCKS_BEHIND)] {
        if !decoder.is_finished() && decoder.can_collect() < out.len() {
            decoder.decode_blocks(&mut data, strategy).map_err(|error| wrong(&error))?;
        }
    }
    // What the decoder still refers to comes out when the frame is at its end.
    if !decoder.is_finished() && decoder.can_collect() < out.len() {
        return Err(corrupt("ZSTD data that goes on behind its strip or tile"));
    }
    let mut filled = 0;
    while filled < out.len() {
        match decoder.read(&mut out[filled..]).map_err(|error| wrong(&error))? {
            0 => break,
            count => filled += count,
        }
    }
    if decoder.is_finished()
        && decoder.can_collect() == 0
        && let Some(stored) = decoder.get_checksum_from_data()
        && decoder.get_calculated_checksum() != Some(stored)
    {
        return Err(corrupt("ZSTD data: its checksum is another one"));
    }
    Ok(filled)
}

fn unpack_packbits(data: &[u8], out: &mut [u8]) -> usize {
    let mut filled = 0;
    let mut rest = data;
    while let [length, tail @ ..] = rest {
        let room = &mut out[filled..];
        match (*length as i8, tail) {
            (-128, _) => rest = tail,
            (length @ 0.., _) => {
                let count = (length as usize + 1).min(tail.len());
                let copied = count.min(room.len());
                room[..copied].copy_from_slice(&tail[..copied]);
                filled += copied;
                rest = &tail[count..];
            }
            (length, [value, tail @ ..]) => {
                let count = (1 - isize::from(length)) as usize;
                let repeated = count.min(room.len());
                room[..repeated].fill(*value);
                filled += repeated;
                rest = tail;
            }
            (_, []) => break,
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(compression: Compression, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        Unpacker::new(compression, false).unpack(packed, size, &mut Memory::default()).map(<[u8]>::to_vec)
    }

    #[test]
    fn packbits_unpacks_the_example_of_the_specification() {
        let packed = b"\xfe\xaa\x02\x80\x00\x2a\xfd\xaa\x03\x80\x00\x2a\x22\xf7\xaa";
        let expected =
            b"\xaa\xaa\xaa\x80\x00\x2a\xaa\xaa\xaa\xaa\x80\x00\x2a\x22\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa";
        assert_eq!(unpack(Compression::PackBits, packed, 24), Ok(expected.to_vec()));
    }

    #[test]
    fn what_follows_the_rows_is_left() {
        use std::io::Write;
        let rows: Vec<u8> = (0..5000u32).map(|i| ((i * i) >> 7) as u8).collect();
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        deflate.write_all(&rows).unwrap();
        let deflate = deflate.finish().unwrap();
        let lzw = weezl::encode::Encoder::with_tiff_size_switch(BitOrder::Msb, 8).encode(&rows).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&rows[..], ruzstd::encoding::CompressionLevel::Fastest);
        let packed = [(Compression::Deflate, deflate), (Compression::Lzw, lzw), (Compression::Zstd, zstd)];
        for (compression, packed) in packed {
            let reversed: Vec<u8> = packed.iter().map(|byte| byte.reverse_bits()).collect();
            let mut backwards = Unpacker::new(compression, true);
            assert_eq!(backwards.unpack(&reversed, 5000, &mut Memory::default()), Ok(&rows[..]), "{compression:?}");
            let mut again = Unpacker::new(compression, false);
            for size in [1, 2500, 4999, 5000] {
                assert_eq!(unpack(compression, &packed, size), Ok(rows[..size].to_vec()), "{compression:?}");
                // The next strip or tile begins anew, whatever became of the one before it.
                assert_eq!(again.unpack(&packed, size, &mut Memory::default()), Ok(&rows[..size]), "{compression:?}");
                assert!(again.unpack(&packed[..3], 5000, &mut Memory::default()).is_err());
            }
            assert!(unpack(compression, &packed, 5001).is_err());
        }
    }

    #[test]
    fn short_data_is_corrupt() {
        for packed in [&b""[..], b"\xfe", b"\x05ab"] {
            assert!(unpack(Compression::PackBits, packed, 24).is_err());
        }
        assert!(unpack(Compression::Deflate, b"\x78\x9c", 4).is_err());
        assert!(unpack(Compression::Zstd, b"\x28\xb5\x2f\xfd", 4).is_err());
        assert!(unpack(Compression::Lzw, b"\x80", 4).is_err());
    }
}
