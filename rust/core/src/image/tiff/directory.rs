//! The structure of a TIFF file: numbers in its byte order, and the directory of tags.

use super::{Result, corrupt, truncated, unsupported};

/// A file's bytes and how numbers are written in it.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    bytes: &'a [u8],
    pub big_endian: bool,
    /// BigTIFF: offsets and counts of 64 bits.
    big: bool,
}

impl<'a> File<'a> {
    /// Reads the header. Returns the file and the offset of its first directory.
    pub fn open(bytes: &'a [u8]) -> Result<(Self, u64)> {
        let mut file = File { bytes, big_endian: bytes.starts_with(b"MM"), big: false };
        file.big = file.u16(2)? == 43;
        let first = if file.big { file.number(8, 8)? } else { file.number(4, 4)? };
        Ok((file, first))
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// `len` bytes from `at`.
    pub fn slice(&self, at: u64, len: u64) -> Result<&'a [u8]> {
        let end = at.checked_add(len).ok_or_else(|| corrupt(format!("an offset of {at}")))?;
        // Both fit usize once `end` is known to lie within the file.
        if end > self.bytes.len() as u64 {
            return Err(truncated(format!("bytes {at} to {end} of a file of {}", self.bytes.len())));
        }
        Ok(&self.bytes[at as usize..end as usize])
    }

    /// Everything from `at` on.
    pub fn from(&self, at: u64) -> Result<&'a [u8]> {
        self.slice(at, (self.bytes.len() as u64).saturating_sub(at))
    }

    fn number(&self, at: u64, size: u64) -> Result<u64> {
        Ok(self.fold(self.slice(at, size)?))
    }

    /// The number that bytes stand for.
    fn fold(&self, bytes: &[u8]) -> u64 {
        let fold = |number, &byte: &u8| number << 8 | u64::from(byte);
        if self.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    }

    fn u16(&self, at: u64) -> Result<u64> {
        self.number(at, 2)
    }
}

/// Bytes in a whole number of each type, and whether it has a sign. Counts, sizes and offsets come in all of them.
fn whole_number(kind: u64) -> Option<(u64, bool)> {
    match kind {
        1 => Some((1, false)),
        3 => Some((2, false)),
        // LONG and IFD.
        4 | 13 => Some((4, false)),
        // LONG8 and IFD8.
        16 | 18 => Some((8, false)),
        6 => Some((1, true)),
        8 => Some((2, true)),
        9 => Some((4, true)),
        17 => Some((8, true)),
        _ => None,
    }
}

/// The type of text.
const ASCII: u64 = 2;

/// Values that a message lists at most.
const LISTED: usize = 8;

/// One image's tags.
#[derive(Debug)]
pub struct Directory<'a> {
    file: File<'a>,
    entries: Vec<Entry>,
    /// Where the next image's directory stands; 0 behind the last one.
    pub next: u64,
}

#[derive(Debug)]
struct Entry {
    tag: u16,
    kind: u64,
    count: u64,
    /// Where the value stands, or its offset if it is too long for the place.
    place: u64,
}

impl<'a> Directory<'a> {
    /// Reads the directory at `at`.
    pub fn read(file: File<'a>, at: u64) -> Result<Self> {
        let (header, entry, inline) = if file.big { (8, 20, 8) } else { (2, 12, 4) };
        let count = file.number(at, header)?;
        // More than a directory can hold is refused before anything is reserved for it.
        if count == 0 || count > u64::from(u16::MAX) {
            return Err(corrupt(format!("a directory of {count} tags")));
        }
        let start = at.saturating_add(header);
        let entries = (0..count)
            .map(|i| {
                let at = start.saturating_add(i * entry);
                Ok(Entry {
                    tag: file.u16(at)? as u16,
                    kind: file.u16(at + 2)?,
                    count: file.number(at + 4, inline)?,
                    place: at + 4 + inline,
                })
            })
            .collect::<Result<_>>()?;
        // Writers that know of one image only leave the link out at the end of the file.
        let next = file.number(start + count * entry, inline).unwrap_or(0);
        Ok(Directory { file, entries, next })
    }

    /// How many tags there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A tag, and the bytes of its values of `size` each.
    fn values(&self, entry: &Entry, size: u64, name: &str) -> Result<&'a [u8]> {
        let length = entry.count.checked_mul(size).ok_or_else(|| corrupt(format!("{} times {name}", entry.count)))?;
        let inline = if self.file.big { 8 } else { 4 };
        let at = if length <= inline { entry.place } else { self.file.number(entry.place, inline)? };
        self.file.slice(at, length)
    }

    fn entry(&self, tag: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    /// The text of `tag`, if the directory has it.
    pub fn text(&self, tag: u16, name: &str) -> Result<Option<&'a str>> {
        let Some(entry) = self.entry(tag).filter(|entry| entry.kind == ASCII) else { return Ok(None) };
        let text = str::from_utf8(self.values(entry, 1, name)?).unwrap_or_default();
        Ok(Some(text.trim_end_matches('\0').trim()))
    }

    /// The bytes of `tag`, if the directory has it.
    pub fn bytes(&self, tag: u16, name: &str) -> Result<Option<&'a [u8]>> {
        self.entry(tag).map(|entry| self.values(entry, 1, name)).transpose()
    }

    /// The numbers of `tag`, if the directory has it. `name` is for the message.
    pub fn numbers(&self, tag: u16, name: &str) -> Result<Option<Vec<u64>>> {
        let Some(entry) = self.entry(tag) else { return Ok(None) };
        let Some((size, signed)) = whole_number(entry.kind) else {
            return Err(corrupt(format!("{name} of type {}", entry.kind)));
        };
        let number = |bytes: &[u8]| {
            let number = self.file.fold(bytes);
            if signed && number >> (8 * size - 1) != 0 {
                return Err(corrupt(format!("a negative {name}")));
            }
            Ok(number)
        };
        self.values(entry, size, name)?.chunks_exact(size as usize).map(number).collect::<Result<_>>().map(Some)
    }

    /// The only, or the first, number of `tag`.
    pub fn number(&self, tag: u16, name: &str) -> Result<Option<u64>> {
        match self.numbers(tag, name)?.as_deref() {
            None => Ok(None),
            Some([]) => Err(corrupt(format!("{name} without a value"))),
            Some([first, ..]) => Ok(Some(*first)),
        }
    }

    /// The number of `tag`, which has to be there.
    pub fn require(&self, tag: u16, name: &str) -> Result<u64> {
        self.number(tag, name)?.ok_or_else(|| corrupt(format!("{name} is missing")))
    }

    /// The number that all values of `tag` share.
    pub fn uniform(&self, tag: u16, name: &str, default: u64) -> Result<u64> {
        match self.numbers(tag, name)?.as_deref() {
            None => Ok(default),
            Some([]) => Err(corrupt(format!("{name} without a value"))),
            Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => Ok(*first),
            Some(mixed) => {
                let (listed, more) =
                    (&mixed[..mixed.len().min(LISTED)], if mixed.len() > LISTED { ", ..." } else { "" });
                Err(unsupported(format!("bands that differ in {name}: {listed:?}{more}")))
            }
        }
    }

    /// The file that the directory is of.
    pub fn file(&self) -> File<'a> {
        self.file
    }
}
