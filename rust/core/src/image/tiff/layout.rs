//! What a directory says about the image, checked: its size, its samples and where its strips or tiles lie.

use super::compression::Compression;
use super::directory::{Directory, File};
use super::{Limits, Result, corrupt, truncated, unsupported};

mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const BANDS: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_BYTES: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const PREDICTOR: u16 = 317;
    pub const COLOR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_BYTES: u16 = 325;
    pub const JPEG_TABLES: u16 = 347;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    /// GDAL's: the value of pixels without data, as text.
    pub const NODATA: u16 = 42113;
}

/// What the samples stand for.
#[derive(Debug)]
pub enum Photometric {
    /// Gray, where zero is white.
    WhiteIsZero,
    /// Gray or colors, or bands of any kind.
    AsStored,
    /// Luminance and color differences, which JPEG decoding turns into colors.
    YCbCr,
    /// Indices of these colors.
    Palette(Vec<[u8; 3]>),
}

/// How the bits of a sample are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers from 0 on.
    Unsigned,
    /// Whole numbers with a sign.
    Signed,
    /// Floating point.
    Float,
}

/// How samples are stored in place of their differences from their left neighbors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differences {
    /// They are not.
    None,
    /// As numbers.
    Horizontal,
    /// Byte by byte.
    Float,
}

/// Bytes of holes that any file may have, however short it is.
const FREE_HOLES: u64 = 64 << 20;

/// Bytes that a tile may hold however small its image is; others hold no more than a few images.
const FREE_TILE: u64 = 16 << 20;

/// Bytes that all tiles together may hold however small their image is: unpacking them takes half a second.
const FREE_TILES: u64 = 256 << 20;

/// The whole image, cut into chunks: strips or tiles.
#[derive(Debug)]
pub struct Layout<'a> {
    pub width: usize,
    pub height: usize,
    pub bands: usize,
    pub bits: u32,
    pub kind: Kind,
    pub big_endian: bool,
    /// Bytes are stored with their bits in reverse.
    pub reversed: bool,
    /// What the JPEGs of all strips or tiles have in common.
    pub jpeg_tables: Option<&'a [u8]>,
    pub photometric: Photometric,
    pub compression: Compression,
    pub differences: Differences,
    /// Of two bands the second one is alpha.
    pub gray_alpha: bool,
    /// What the samples of a hole in a sparse file are.
    pub hole: f64,
    /// All bands, or one where every band has its own chunks.
    pub bands_in_chunk: usize,
    pub chunk_width: usize,
    pub chunk_height: usize,
    /// Bytes in a row of a chunk.
    pub row_bytes: usize,
    tiled: bool,
    offsets: Vec<u64>,
    /// Compressed bytes of each chunk. Old writers leave them out.
    lengths: Option<Vec<u64>>,
}

/// A strip or tile: its number, and where its first sample belongs.
#[derive(Debug)]
pub struct Chunk {
    index: usize,
    pub plane: usize,
    pub x: usize,
    pub y: usize,
}

impl<'a> Layout<'a> {
    /// Reads and checks everything but the samples.
    pub fn read(directory: &Directory<'a>, limits: &Limits) -> Result<Self> {
        let width = directory.require(tag::WIDTH, "ImageWidth")?;
        let height = directory.require(tag::HEIGHT, "ImageLength")?;
        let bands = directory.number(tag::BANDS, "SamplesPerPixel")?.unwrap_or(1);
        if width == 0 || height == 0 || bands == 0 {
            return Err(corrupt(format!("{width} x {height} pixels of {bands} bands")));
        }
        limits.check_bands(width, height, bands)?;

        let bits = directory.uniform(tag::BITS, "BitsPerSample", 1)?;
        let kind = read_kind(bits, directory.uniform(tag::SAMPLE_FORMAT, "SampleFormat", 1)?)?;
        let compression = Compression::from_code(directory.number(tag::COMPRESSION, "Compression")?.unwrap_or(1))?;
        let planar = match directory.number(tag::PLANAR, "PlanarConfiguration")?.unwrap_or(1) {
            1 => false,
            2 => bands > 1,
            other => return Err(corrupt(format!("PlanarConfiguration {other}"))),
        };

        let tiled = directory.number(tag::TILE_WIDTH, "TileWidth")?.is_some();
        let (chunk_width, chunk_height) = if tiled {
            (directory.require(tag::TILE_WIDTH, "TileWidth")?, directory.require(tag::TILE_HEIGHT, "TileLength")?)
        } else {
            (width, directory.number(tag::ROWS_PER_STRIP, "RowsPerStrip")?.unwrap_or(height).min(height))
        };
        if chunk_width == 0 || chunk_height == 0 {
            return Err(corrupt(format!("strips or tiles of {chunk_width} x {chunk_height} pixels")));
        }
        // Tiles are held whole, and nothing keeps a file from declaring one far beyond its image.
        limits.check_bands(chunk_width, chunk_height, bands)?;
        let bands_in_chunk = if planar { 1 } else { bands };
        let row_bytes = chunk_width.saturating_mul(bands_in_chunk).saturating_mul(bits).div_ceil(8);
        if compression == Compression::Jpeg {
            if bits != 8 || kind != Kind::Unsigned {
                return Err(unsupported(format!("JPEG compression of {bits} bits a sample; 8 are read")));
            }
            if bands_in_chunk > 4 {
                return Err(unsupported(format!("JPEG compression of {bands_in_chunk} bands together; 4 are read")));
            }
        }

        let (offsets, lengths, name) = if tiled {
            (tag::TILE_OFFSETS, tag::TILE_BYTES, "tile")
        } else {
            (tag::STRIP_OFFSETS, tag::STRIP_BYTES, "strip")
        };
        let layout = Layout {
            width: width as usize,
            height: height as usize,
            bands: bands as usize,
            bits: bits as u32,
            kind,
            big_endian: directory.file().big_endian,
            // JPEG has its own order.
            reversed: compression != Compression::Jpeg && directory.number(tag::FILL_ORDER, "FillOrder")? == Some(2),
            jpeg_tables: directory.bytes(tag::JPEG_TABLES, "JPEGTables")?,
            photometric: read_photometric(directory, bits, bands, compression == Compression::Jpeg && !planar)?,
            compression,
            differences: read_predictor(directory, bits, kind, compression)?,
            gray_alpha: bands == 2 && matches!(directory.number(tag::EXTRA_SAMPLES, "ExtraSamples")?, Some(1 | 2)),
            hole: directory.text(tag::NODATA, "GDAL_NODATA")?.and_then(|text| text.parse().ok()).unwrap_or(0.0),
            bands_in_chunk: bands_in_chunk as usize,
            chunk_width: chunk_width as usize,
            chunk_height: chunk_height as usize,
            row_bytes: row_bytes as usize,
            tiled,
            offsets: directory.numbers(offsets, "offsets")?.unwrap_or_default(),
            lengths: directory.numbers(lengths, "byte counts")?,
        };
        if kind != Kind::Unsigned && matches!(layout.photometric, Photometric::WhiteIsZero) {
            return Err(unsupported("samples with a sign, or of floating point, whose zero is white"));
        }
        let (needed, found) = (layout.chunk_count(), layout.offsets.len());
        if found < needed || layout.lengths.as_ref().is_some_and(|lengths| lengths.len() < needed) {
            return Err(corrupt(format!(
                "{needed} {name}s are needed, but offsets or byte counts are missing ({found})"
            )));
        }
        Ok(layout)
    }

    /// Whether samples of fewer than 8 bits are scaled to 0..=255, as gray is and palette indices are not.
    pub fn scales(&self) -> bool {
        self.bits < 8 && !matches!(self.photometric, Photometric::Palette(_))
    }

    /// The value of black where zero is white.
    pub fn white_is_zero(&self) -> Option<u16> {
        matches!(self.photometric, Photometric::WhiteIsZero).then(|| (u32::MAX >> (32 - self.bits)) as u16)
    }

    /// All strips or tiles, in their order in the file.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (across, down, planes) = self.grid();
        let (width, height) = (self.chunk_width, self.chunk_height);
        (0..across * down * planes).map(move |index| {
            let place = index % (across * down);
            Chunk { index, plane: index / (across * down), x: place % across * width, y: place / across * height }
        })
    }

    /// Decompressed bytes of a chunk's rows that lie in the image.
    pub fn chunk_bytes(&self, chunk: &Chunk) -> usize {
        self.chunk_height.min(self.height - chunk.y) * self.row_bytes
    }

    /// Fails unless the file can hold what it declares: the image is not asked memory for before. Data expands by no more
    /// than its compression allows, and a file of many holes has their offsets at least.
    pub fn check_size(&self, file: File<'_>) -> Result<()> {
        let (mut holes, mut total) = (0, 0);
        let image = (self.width * self.height * self.bands * self.bits.div_ceil(8) as usize) as u64;
        for chunk in self.chunks() {
            let size = self.chunk_bytes(&chunk) as u64;
            total += size;
            if (size > FREE_TILE && size / 4 > image) || (total > FREE_TILES && total / 4 > image) {
                return Err(corrupt(format!(
                    "tiles {} pixels wide for an image of {} x {}",
                    self.chunk_width, self.width, self.height
                )));
            }
            match self.locate(file, &chunk)? {
                None => holes += size,
                Some(data) if size / self.compression.max_ratio() > data.len() as u64 => {
                    return Err(corrupt(format!("{} bytes of a strip or tile cannot hold {size}", data.len())));
                }
                Some(_) => {}
            }
        }
        if holes > FREE_HOLES + file.len().saturating_mul(Compression::Deflate.max_ratio()) {
            return Err(unsupported(format!(
                "{holes} bytes of holes in a sparse file of {}; cut it into tiles, or fill the holes",
                file.len()
            )));
        }
        Ok(())
    }

    /// The compressed bytes of a chunk. `None` of a hole in a sparse file.
    pub fn locate<'b>(&self, file: File<'b>, chunk: &Chunk) -> Result<Option<&'b [u8]>> {
        let offset = self.offsets[chunk.index];
        let length = self.lengths.as_ref().map(|lengths| lengths[chunk.index]);
        if offset == 0 && length == Some(0) {
            return Ok(None);
        }
        let data = match (self.compression, length) {
            // As libtiff does, byte counts of uncompressed data are not relied on: old writers get them wrong.
            (Compression::None, _) => file.slice(offset, self.chunk_bytes(chunk) as u64),
            // Compressed data ends by itself where its length was not known to the writer.
            (_, None | Some(0)) => file.from(offset),
            (_, Some(length)) => file.slice(offset, length),
        };
        let name = if self.tiled { "tile" } else { "strip" };
        let where_it_ends = |_| {
            truncated(format!(
                "{name} {} of {} reaches beyond the end of the file",
                chunk.index + 1,
                self.chunk_count()
            ))
        };
        data.map(Some).map_err(where_it_ends)
    }

    fn chunk_count(&self) -> usize {
        let (across, down, planes) = self.grid();
        across * down * planes
    }

    fn grid(&self) -> (usize, usize, usize) {
        let planes = self.bands / self.bands_in_chunk;
        (self.width.div_ceil(self.chunk_width), self.height.div_ceil(self.chunk_height), planes)
    }
}

fn read_kind(bits: u64, format: u64) -> Result<Kind> {
    match (format, bits) {
        // 4: undefined, which writers use for unsigned.
        (1 | 4, 1..=16) => Ok(Kind::Unsigned),
        (2, 8 | 16) => Ok(Kind::Signed),
        (3, 16 | 32 | 64) => Ok(Kind::Float),
        (1 | 4, _) => Err(unsupported(format!("{bits} bits a sample; convert it to uint16 or float32"))),
        (2, _) => Err(unsupported(format!("{bits}-bit signed samples; convert it to int16 or float32"))),
        (3, _) => Err(unsupported(format!("{bits}-bit floating-point samples; convert it to float32"))),
        _ => Err(unsupported(format!("samples of format {format}; convert it to uint16 or float32"))),
    }
}

fn read_photometric(directory: &Directory<'_>, bits: u64, bands: u64, jpeg: bool) -> Result<Photometric> {
    let space = match directory.number(tag::PHOTOMETRIC, "PhotometricInterpretation")?.unwrap_or(1) {
        0 => return Ok(Photometric::WhiteIsZero),
        1 | 2 => return Ok(Photometric::AsStored),
        3 if bands == 1 && bits <= 8 => {
            let map = directory.numbers(tag::COLOR_MAP, "ColorMap")?.unwrap_or_default();
            let colors = 1 << bits;
            if map.len() < 3 * colors {
                return Err(corrupt(format!("a palette of {} values, not {}", map.len(), 3 * colors)));
            }
            // All reds, all greens, all blues, of 16 bits. Old writers put 8 bits there: as in libtiff, colors that are all
            // but black are such.
            let shift = if map.iter().take(3 * colors).all(|&value| value < 256) { 0 } else { 8 };
            let color = |i| [0, 1, 2].map(|band| (map[band * colors + i] >> shift) as u8);
            return Ok(Photometric::Palette((0..colors).map(color).collect()));
        }
        6 if bands == 3 && jpeg => return Ok(Photometric::YCbCr),
        3 => "a palette of this depth",
        4 => "a transparency mask",
        5 => "CMYK",
        6 => "YCbCr",
        8..=10 => "CIE L*a*b*",
        _ => "this color space",
    };
    Err(unsupported(format!("{space}; convert it to RGB")))
}

fn read_predictor(directory: &Directory<'_>, bits: u64, kind: Kind, compression: Compression) -> Result<Differences> {
    // As in libtiff, differences belong to the compressions that profit from them: elsewhere the tag means nothing.
    if !compression.predicts() {
        return Ok(Differences::None);
    }
    match directory.number(tag::PREDICTOR, "Predictor")?.unwrap_or(1) {
        1 => Ok(Differences::None),
        // Those of 16-bit floating point would be of other bits than the samples are read to.
        2 if matches!(bits, 8 | 16 | 32 | 64) && (kind, bits) != (Kind::Float, 16) => Ok(Differences::Horizontal),
        2 => Err(unsupported(format!("differences of {bits}-bit samples (Predictor 2)"))),
        3 if kind == Kind::Float => Ok(Differences::Float),
        3 => Err(unsupported("differences of floating-point samples (Predictor 3) of whole numbers")),
        other => Err(corrupt(format!("Predictor {other}"))),
    }
}
