//! Marker segments: everything in a file but the entropy-coded data (T.81 annex B).

use super::bits::next_marker;
use super::frame::{Color, Component, Frame, MAX_COMPONENTS};
use super::huffman::{Spec, standard};
use super::{corrupt, truncated, unsupported};
use crate::image::{Limits, Result};

/// More scans than any encoder writes. The scans of a progressive file each visit the whole image, so that a small file
/// of many scans would take its reader very long.
const MAX_SCANS: usize = 500;

/// A component's part in a scan.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selector {
    /// Its place in the frame.
    pub component: usize,
    /// Its slot of DC tables.
    pub dc: usize,
    /// Its slot of AC tables.
    pub ac: usize,
}

/// What an SOS segment declares.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    selectors: [Selector; MAX_COMPONENTS],
    count: usize,
    /// The first coefficient in zigzag order.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// Bits below the ones that earlier scans have sent; 0 in a first scan.
    pub high: u32,
    /// Bits below the ones that this scan sends.
    pub low: u32,
}

impl Scan {
    /// The components that take part.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors[..self.count]
    }
}

/// What was found where the next scan was looked for.
#[derive(Debug)]
pub enum Next {
    /// A scan, whose data starts at the reader's position.
    Scan(Scan),
    /// The marker that ends an image.
    EndOfImage,
    /// The end of the file.
    EndOfFile,
}

/// Reads markers and keeps what they define.
#[derive(Debug)]
pub struct Markers<'a> {
    data: &'a [u8],
    position: usize,
    limits: Limits,
    frame: Option<Frame>,
    /// In natural order.
    quantizers: [Option<[u16; 64]>; 4],
    /// DC tables, then AC tables.
    huffman: [[Option<Spec>; 4]; 2],
    restart_interval: usize,
    jfif: bool,
    adobe_transform: Option<u8>,
    /// What the components mean, where that is known from elsewhere.
    color: Option<Color>,
    scans: usize,
}

impl<'a> Markers<'a> {
    /// Starts at the file's first byte.
    pub fn new(data: &'a [u8], limits: &Limits) -> Result<Self> {
        match data {
            [0xff, 0xd8, ..] => {}
            [] => return Err(crate::error::ImageError::Empty),
            [0xff] => return Err(truncated("the file ends within its first marker")),
            _ => return Err(corrupt("it does not start with the marker SOI")),
        }
        Ok(Markers {
            data,
            position: 2,
            limits: *limits,
            frame: None,
            quantizers: [None; 4],
            huffman: [[None; 4]; 2],
            restart_interval: 0,
            jfif: false,
            adobe_transform: None,
            color: None,
            scans: 0,
        })
    }

    /// Takes over the tables of a file that holds nothing else.
    pub fn read_tables(&mut self, tables: &'a [u8]) -> Result<()> {
        let mut other = Markers::new(tables, &self.limits)?;
        if matches!(other.next_scan()?, Next::Scan(_)) {
            return Err(corrupt("an image where its tables should be"));
        }
        (self.quantizers, self.huffman, self.restart_interval) =
            (other.quantizers, other.huffman, other.restart_interval);
        Ok(())
    }

    /// Says what the components mean, instead of the file.
    pub fn set_color(&mut self, color: Color) {
        self.color = Some(color);
    }

    /// Where the next marker is looked for, or where a scan's data starts.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Goes on at `position`.
    pub fn seek(&mut self, position: usize) {
        self.position = position;
    }

    /// MCUs between two restart markers; 0 if there are none.
    pub fn restart_interval(&self) -> usize {
        self.restart_interval
    }

    /// The frame, once a scan was found.
    pub fn frame(&self) -> Result<&Frame> {
        self.frame.as_ref().ok_or_else(|| corrupt("no frame header"))
    }

    /// Gives the components that no scan has sent a quantization table, of zeros.
    pub fn quantize_all(&mut self) {
        let Some(frame) = &mut self.frame else { return };
        for i in 0..frame.components().len() {
            frame.component_mut(i).quantizer.get_or_insert([0; 64]);
        }
    }

    /// The Huffman table in a slot, or the standard one where `or_standard` allows it.
    pub fn huffman(&self, ac: bool, slot: usize, or_standard: bool) -> Result<Spec> {
        let defined = self.huffman[usize::from(ac)].get(slot).copied().flatten();
        defined.or_else(|| if or_standard { standard(ac, slot) } else { None }).ok_or_else(|| {
            let class = if ac { "AC" } else { "DC" };
            corrupt(format!("{class} Huffman table {slot} is used but not defined"))
        })
    }

    /// Reads on to the next scan.
    pub fn next_scan(&mut self) -> Result<Next> {
        loop {
            let Some((code, position)) = next_marker(self.data, self.position) else {
                return Ok(Next::EndOfFile);
            };
            self.position = position;
            match code {
                // Restart markers behind the last MCU, and TEM, stand alone.
                0x01 | 0xd0..=0xd7 => {}
                0xd8 => return Err(corrupt("a second marker SOI")),
                0xd9 => return Ok(Next::EndOfImage),
                0xc0..=0xc2 => {
                    let segment = self.segment()?;
                    self.start_of_frame(segment, code == 0xc2)?;
                }
                0xc4 => {
                    let segment = self.segment()?;
                    self.huffman_tables(segment)?;
                }
                0xc3 => return Err(unsupported("lossless coding")),
                0xc5..=0xc7 | 0xcd..=0xcf | 0xde => return Err(unsupported("hierarchical coding")),
                0xc8 => return Err(unsupported("the extension that the marker JPG stands for")),
                0xc9 | 0xca => return Err(unsupported("arithmetic coding")),
                0xcb => return Err(unsupported("lossless arithmetic coding")),
                0xda => {
                    let segment = self.segment()?;
                    return self.start_of_scan(segment).map(Next::Scan);
                }
                0xdb => {
                    let segment = self.segment()?;
                    self.quantization_tables(segment)?;
                }
                0xdd => match self.segment()? {
                    &[high, low] => self.restart_interval = usize::from(u16::from_be_bytes([high, low])),
                    other => return Err(corrupt(format!("a DRI segment of {} bytes instead of 2", other.len()))),
                },
                0xe0 => {
                    let segment = self.segment()?;
                    self.jfif |= segment.starts_with(b"JFIF\0") && segment.len() >= 14;
                }
                0xee => {
                    let segment = self.segment()?;
                    if segment.starts_with(b"Adobe") && segment.len() >= 12 {
                        self.adobe_transform = Some(segment[11]);
                    }
                }
                0xf7 => return Err(unsupported("JPEG-LS coding")),
                // Comments, application data, and what has a length but no meaning here.
                _ => {
                    self.segment()?;
                }
            }
        }
    }

    /// The content of the segment at the position, which moves behind it.
    fn segment(&mut self) -> Result<&'a [u8]> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        let end = || truncated("the file ends within its headers");
        let &length = rest.first_chunk().ok_or_else(end)?;
        let length = usize::from(u16::from_be_bytes(length));
        if length < 2 {
            return Err(corrupt(format!("a marker segment of length {length}, which its own length field exceeds")));
        }
        let content = rest.get(2..length).ok_or_else(end)?;
        self.position += length;
        Ok(content)
    }

    fn start_of_frame(&mut self, segment: &[u8], progressive: bool) -> Result<()> {
        if self.frame.is_some() {
            return Err(corrupt("a second frame header"));
        }
        let Some((&[precision, h1, h0, w1, w0, count], specs)) = segment.split_first_chunk() else {
            return Err(corrupt(format!("a frame header of {} bytes", segment.len())));
        };
        let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
        self.limits.check(width.into(), height.into())?;
        if precision != 8 {
            return Err(unsupported(format!("{precision} bits a sample; 8 are read")));
        }
        if height == 0 {
            return Err(unsupported("a height of 0, to be given behind the first scan (marker DNL)"));
        }
        if width == 0 {
            return Err(corrupt("a width of 0"));
        }
        let known = self.color.map(|color| color.components());
        if known.map_or(!matches!(count, 1 | 3 | 4), |known| known != usize::from(count)) {
            return Err(match known {
                Some(known) => corrupt(format!("{count} components in place of {known}")),
                None => unsupported(format!("{count} components; 1, 3 or 4 are read")),
            });
        }
        if specs.len() != usize::from(count) * 3 {
            return Err(corrupt(format!("a frame header of {} bytes for {count} components", segment.len())));
        }
        let mut components = [Component::default(); MAX_COMPONENTS];
        for (component, spec) in components.iter_mut().zip(specs.chunks_exact(3)) {
            let (h, v) = (usize::from(spec[1] >> 4), usize::from(spec[1] & 15));
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return Err(corrupt(format!("sampling factors {h} x {v}; each is 1 to 4")));
            }
            *component = Component { id: spec[0], h, v, quantizer_slot: spec[2].into(), ..Component::default() };
        }
        self.frame = Some(Frame::new(width.into(), height.into(), progressive, components, count.into()));
        Ok(())
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let (wide, slot) = (head >> 4 != 0, usize::from(head & 15));
            let length = if wide { 128 } else { 64 };
            let (Some(values), Some(quantizer)) = (rest.get(..length), self.quantizers.get_mut(slot)) else {
                return Err(corrupt(format!("quantization table {slot} in a segment of {} bytes", segment.len())));
            };
            let mut table = [0; 64];
            for (k, &natural) in ZIGZAG[..64].iter().enumerate() {
                table[usize::from(natural)] =
                    if wide { u16::from_be_bytes([values[2 * k], values[2 * k + 1]]) } else { values[k].into() };
            }
            *quantizer = Some(table);
            segment = &rest[length..];
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let (class, slot) = (usize::from(head >> 4), usize::from(head & 15));
            let wrong = || corrupt(format!("Huffman table {slot} of class {class} in a segment too short for it"));
            let Some((&counts, rest)) = rest.split_first_chunk::<16>() else {
                return Err(wrong());
            };
            let length = counts.iter().map(|&n| usize::from(n)).sum();
            let mut spec = Spec { counts, symbols: [0; 256] };
            let (Some(to), Some(from)) = (spec.symbols.get_mut(..length), rest.get(..length)) else {
                return Err(wrong());
            };
            to.copy_from_slice(from);
            let Some(place) = self.huffman.get_mut(class).and_then(|slots| slots.get_mut(slot)) else {
                return Err(corrupt(format!("Huffman table {slot} of class {class}; there are 4 of 2 classes")));
            };
            *place = Some(spec);
            segment = &rest[length..];
        }
        Ok(())
    }

    fn start_of_scan(&mut self, segment: &[u8]) -> Result<Scan> {
        let Some(frame) = &mut self.frame else {
            return Err(corrupt("a scan before the frame header"));
        };
        self.scans += 1;
        if self.scans == 1 {
            match self.color {
                Some(color) => frame.color = color,
                None => frame.set_color(self.jfif, self.adobe_transform),
            }
        }
        if self.scans > MAX_SCANS {
            return Err(corrupt(format!("more than {MAX_SCANS} scans")));
        }
        let wrong = || corrupt(format!("a scan header of {} bytes", segment.len()));
        let (&count, rest) = segment.split_first().ok_or_else(wrong)?;
        let count = usize::from(count);
        if !(1..=MAX_COMPONENTS).contains(&count) || rest.len() != 2 * count + 3 {
            return Err(wrong());
        }
        let mut scan = Scan {
            selectors: Default::default(),
            count,
            first: rest[2 * count].into(),
            last: rest[2 * count + 1].into(),
            high: (rest[2 * count + 2] >> 4).into(),
            low: (rest[2 * count + 2] & 15).into(),
        };
        for i in 0..count {
            let (id, slots) = (rest[2 * i], rest[2 * i + 1]);
            let taken = |c: usize| scan.selectors[..i].iter().any(|selector| selector.component == c);
            let found = (0..frame.components().len()).find(|&c| frame.components()[c].id == id && !taken(c));
            let component = found.ok_or_else(|| corrupt(format!("a scan of component {id}, which is not there")))?;
            scan.selectors[i] = Selector { component, dc: (slots >> 4).into(), ac: (slots & 15).into() };
            // A component keeps the table that is in its slot at its first scan (T.81 B.2.4.1).
            let component = frame.component_mut(component);
            if component.quantizer.is_none() {
                component.quantizer = self.quantizers.get(component.quantizer_slot).copied().flatten();
            }
            if component.quantizer.is_none() {
                let slot = component.quantizer_slot;
                return Err(corrupt(format!("quantization table {slot} is used but not defined")));
            }
        }
        Ok(scan)
    }
}

/// The place of the k-th coefficient in a block's natural order (T.81 figure 5). A run that leads past the block's end
/// ends in the last place: the extra entries spare the decoder a check a coefficient.
#[rustfmt::skip]
pub const ZIGZAG: [u8; 64 + 16] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
];
