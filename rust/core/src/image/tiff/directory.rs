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
        let fold = |number, &byte: &u8| number << 8 | u64::from(byte);
        let bytes = self.slice(at, size)?;
        Ok(if self.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    }

    fn u16(&self, at: u64) -> Result<u64> {
        self.number(at, 2)
    }
}

/// Bytes in a number of each type that counts and offsets are written in: BYTE, SHORT, LONG, LONG8 and IFD8.
fn size_of(kind: u64) -> Option<u64> {
    match kind {
        1 => Some(1),
        3 => Some(2),
        4 => Some(4),
        16 | 18 => Some(8),
        _ => None,
    }
}

/// One image's tags.
#[derive(Debug)]
pub struct Directory<'a> {
    file: File<'a>,
    entries: Vec<Entry>,
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
        let (header, entry) = if file.big { (8, 20) } else { (2, 12) };
        let count = file.number(at, header)?;
        // More than a directory can hold is refused before anything is reserved for it.
        if count == 0 || count > u64::from(u16::MAX) {
            return Err(corrupt(format!("a directory of {count} tags")));
        }
        let start = at.saturating_add(header);
        let entries = (0..count)
            .map(|i| {
                let at = start.saturating_add(i * entry);
                let count_size = if file.big { 8 } else { 4 };
                Ok(Entry {
                    tag: file.u16(at)? as u16,
                    kind: file.u16(at + 2)?,
                    count: file.number(at + 4, count_size)?,
                    place: at + 4 + count_size,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Directory { file, entries })
    }

    /// The numbers of `tag`, if the directory has it. `name` is for the message.
    pub fn numbers(&self, tag: u16, name: &str) -> Result<Option<Vec<u64>>> {
        let Some(entry) = self.entries.iter().find(|entry| entry.tag == tag) else { return Ok(None) };
        let size = size_of(entry.kind).ok_or_else(|| corrupt(format!("{name} of type {}", entry.kind)))?;
        let length = entry.count.checked_mul(size).ok_or_else(|| corrupt(format!("{} times {name}", entry.count)))?;
        let inline = if self.file.big { 8 } else { 4 };
        let at = if length <= inline { entry.place } else { self.file.number(entry.place, inline)? };
        // Checked as a whole before memory is taken for the numbers.
        self.file.slice(at, length)?;
        (0..entry.count).map(|i| self.file.number(at + i * size, size)).collect::<Result<_>>().map(Some)
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
            Some(mixed) => Err(unsupported(format!("bands that differ in {name}: {mixed:?}"))),
        }
    }

    /// The file that the directory is of.
    pub fn file(&self) -> File<'a> {
        self.file
    }
}
