//! The header of a `.npy` file: versions 1 to 3, little endian, C order, two dimensions.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::dtype::Dtype;
use crate::error::{Error, Result};

/// NumPy writes 64-byte multiples of a few hundred bytes; a header beyond this is an attack or not a header.
const MAX_HEADER: usize = 1 << 20;

/// What the header of a matrix says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) shape: [usize; 2],
    pub(super) dtype: Dtype,
    /// Where the numbers start.
    pub(super) offset: u64,
}

impl Header {
    /// Fails when a file of `size` bytes cannot hold what the header promises.
    pub(super) fn check_size(&self, size: u64, path: &Path) -> Result<()> {
        let [n, dim] = self.shape;
        let promised = (n as u64).checked_mul(dim as u64).and_then(|count| count.checked_mul(self.dtype.size() as u64));
        let there = size.saturating_sub(self.offset);
        match promised {
            Some(bytes) if bytes <= there => Ok(()),
            _ => Err(format(
                path,
                format!(
                    "truncated: its header promises ({n}, {dim}) {} numbers, but only {there} bytes follow it",
                    self.dtype
                ),
            )),
        }
    }
}

/// Reads the header from the start of `source`.
pub(super) fn read_header(source: &mut File, path: &Path) -> Result<Header> {
    let mut prefix = [0; 8];
    fill(source, &mut prefix, path)?;
    if prefix[..6] != *b"\x93NUMPY" {
        return Err(format(path, "not a .npy file: it does not start with \\x93NUMPY".into()));
    }
    let length = match prefix[6] {
        1 => {
            let mut length = [0; 2];
            fill(source, &mut length, path)?;
            u16::from_le_bytes(length) as usize
        }
        2 | 3 => {
            let mut length = [0; 4];
            fill(source, &mut length, path)?;
            u32::from_le_bytes(length) as usize
        }
        major => return Err(format(path, format!("version {major} of the .npy format; 1, 2 and 3 are read"))),
    };
    if length > MAX_HEADER {
        return Err(format(path, format!("its header claims {length} bytes; at most {MAX_HEADER} are read")));
    }
    let mut text = vec![0; length];
    fill(source, &mut text, path)?;
    let offset = (if prefix[6] == 1 { 10 } else { 12 } + length) as u64;
    let text = String::from_utf8_lossy(&text);
    let Some(fields) = Parser { rest: &text }.dictionary() else {
        return Err(format(path, format!("its header is not what NumPy writes: {:?}", text.trim_end())));
    };
    let Fields { descr: Some(descr), fortran_order: Some(fortran_order), shape: Some(shape) } = fields else {
        return Err(format(path, "its header lacks descr, fortran_order or shape".into()));
    };
    let dtype = dtype(&descr, path)?;
    let [n, dim] = shape[..] else {
        return Err(Error::Shape(format!(
            "{}: an array of shape {shape:?}; expected (rows, dimensions)",
            path.display()
        )));
    };
    if fortran_order {
        return Err(format(
            path,
            "in Fortran order, whose rows do not lie together; save np.ascontiguousarray(x)".into(),
        ));
    }
    Ok(Header { shape: [n, dim], dtype, offset })
}

fn dtype(descr: &str, path: &Path) -> Result<Dtype> {
    match descr {
        "<f2" => Ok(Dtype::F16),
        "<f4" => Ok(Dtype::F32),
        "<f8" => Ok(Dtype::F64),
        // What NumPy writes for the bfloat16 of ml_dtypes: it knows no name for it.
        "<V2" | "|V2" => Ok(Dtype::Bf16),
        ">f2" | ">f4" | ">f8" => Err(Error::Dtype(format!(
            "{}: big-endian numbers ({descr}); save x.astype('<{}') instead",
            path.display(),
            &descr[1..]
        ))),
        _ => Err(Error::Dtype(format!(
            "{}: numbers of type {descr:?}; float16, bfloat16, float32 and float64 are read: save x.astype(numpy.float32)",
            path.display()
        ))),
    }
}

fn fill(source: &mut File, buffer: &mut [u8], path: &Path) -> Result<()> {
    source.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => format(path, "not a .npy file: it ends within the header".into()),
        _ => Error::Io { path: path.to_owned(), source: error },
    })
}

fn format(path: &Path, why: String) -> Error {
    Error::Format { path: path.to_owned(), why }
}

#[derive(Default)]
struct Fields {
    descr: Option<String>,
    fortran_order: Option<bool>,
    shape: Option<Vec<usize>>,
}

/// The few Python literals that a header consists of. `None` means: not one of them.
struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn dictionary(&mut self) -> Option<Fields> {
        let mut fields = Fields::default();
        self.expect('{')?;
        while !self.accept('}') {
            let key = self.string()?;
            self.expect(':')?;
            match key {
                "descr" => fields.descr = Some(self.descr()?),
                "fortran_order" => fields.fortran_order = Some(self.boolean()?),
                "shape" => fields.shape = Some(self.integers()?),
                _ => return None,
            }
            if !self.accept(',') {
                self.expect('}')?;
                break;
            }
        }
        self.rest.trim().is_empty().then_some(fields)
    }

    /// The name of a dtype; for a structured one the text of its list, which no dtype is called.
    fn descr(&mut self) -> Option<String> {
        if !self.rest.trim_start().starts_with('[') {
            return self.string().map(str::to_owned);
        }
        let end = self.rest.rfind(']')? + 1;
        let (list, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(list.trim().to_owned())
    }

    fn string(&mut self) -> Option<&'t str> {
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (text, rest) = self.rest[1..].split_once(quote)?;
        self.rest = rest;
        Some(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    fn integers(&mut self) -> Option<Vec<usize>> {
        let mut numbers = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            self.rest = self.rest.trim_start();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            numbers.push(self.rest[..digits].parse().ok()?);
            // NumPy on Python 2 wrote long integers as 10L.
            self.rest = self.rest[digits..].trim_start_matches('L');
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Some(numbers)
    }

    fn accept(&mut self, c: char) -> bool {
        self.expect(c).is_some()
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(c)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::{Block, Rows};
    use super::*;

    /// A file in the system's folder for such, removed when it is dropped.
    struct Temporary(std::path::PathBuf);

    impl Temporary {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("rsprune-{}-{name}.npy", std::process::id()));
            File::create(&path).unwrap().write_all(content).unwrap();
            Temporary(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn npy(major: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY".to_vec();
        file.extend([major, 0]);
        match major {
            1 => file.extend((header.len() as u16).to_le_bytes()),
            _ => file.extend((header.len() as u32).to_le_bytes()),
        }
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    fn numbers(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn all_versions_are_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }   \n";
        for major in 1..=3 {
            let data = numbers(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            let file = Temporary::new(&format!("version{major}"), &npy(major, header, &data));
            let rows = Rows::new(vec![Block::open(&file.0).unwrap()]).unwrap();
            assert_eq!(rows.reader().read(1..3).unwrap(), [3.0, 4.0, 5.0, 6.0]);
        }
    }

    #[test]
    fn a_file_cut_after_it_was_opened_is_an_error() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
        let file = Temporary::new("cut", &npy(1, header, &numbers(&[0.0; 6])));
        let rows = Rows::new(vec![Block::open(&file.0).unwrap()]).unwrap();
        File::options().write(true).open(&file.0).unwrap().set_len(80).unwrap();
        let error = rows.reader().read(0..3).unwrap_err();
        assert!(matches!(&error, Error::Format { why, .. } if why.contains("truncated")), "{error}");
        assert!(error.to_string().contains("cut") && error.to_string().contains("row 1"), "{error}");
    }

    /// Rows of 52 bytes, so that none but the first starts on a page.
    fn matrix(n: usize) -> (Vec<u8>, Vec<f64>) {
        let values: Vec<f32> = (0..n * 13).map(|i| i as f32).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, 13), }}");
        (npy(1, &header, &numbers(&values)), values.into_iter().map(f64::from).collect())
    }

    #[test]
    fn files_read_past_the_page_cache_hold_the_same() {
        let (content, values) = matrix(1000);
        let file = Temporary::new("past", &content);
        let mut block = Block::open(&file.0).unwrap();
        block.file_mut().unwrap().read_past_cache();
        let rows = Rows::new(vec![block]).unwrap();
        for range in [0..1000, 0..1, 999..1000, 77..83, 500..500, 1..999] {
            let expected = &values[range.start * 13..range.end * 13];
            assert_eq!(rows.reader().read(range).unwrap(), expected);
        }
        File::options().write(true).open(&file.0).unwrap().set_len(20_000).unwrap();
        let error = rows.reader().read(0..1000).unwrap_err().to_string();
        assert!(error.contains("truncated") && error.contains("row 38"), "{error}");
    }

    #[test]
    fn what_was_fetched_is_not_read_again() {
        let (content, values) = matrix(300);
        let (one, two) = (Temporary::new("one", &content), Temporary::new("two", &content));
        let memory = vec![1.5f32; 2 * 13];
        let blocks = [
            Block::open(&one.0).unwrap(),
            Block::from_slice(&memory, 13).unwrap(),
            Block::from_slice(&[] as &[f32], 13).unwrap(),
            Block::open(&two.0).unwrap(),
        ];
        let rows = Rows::new(blocks.into()).unwrap();
        assert_eq!(rows.file_row_bytes(), Some(52));
        let expected = [&values[..], &[1.5; 2 * 13], &values].concat();
        let mut reader = rows.reader();
        reader.fetch(200..400).unwrap();
        for path in [&one.0, &two.0] {
            File::options().write(true).open(path).unwrap().set_len(100).unwrap();
        }
        for range in [200..400, 250..303, 299..301, 300..302, 302..350, 399..400, 400..400] {
            assert_eq!(reader.read(range.clone()).unwrap(), &expected[range.start * 13..range.end * 13]);
            let next = range.end.min(390)..(range.end + 10).min(400);
            let in_one_piece = next.end <= 300 || next.start >= 302;
            let (singles, upcoming) = reader.read_single(range.clone(), next.clone()).unwrap();
            assert!(singles.iter().zip(&expected[range.start * 13..]).all(|(&v, &e)| f64::from(v) == e));
            let bytes: Vec<u8> =
                expected[next.start * 13..next.end * 13].iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
            assert_eq!(upcoming, if in_one_piece { &bytes[..] } else { &[] });
        }
        assert!(reader.read(199..201).is_err(), "row 199 was not fetched");
        assert!(reader.fetch(0..10).is_err());
        assert!(reader.read(200..201).is_err(), "a fetch that failed leaves nothing");
    }

    #[test]
    fn bad_headers_have_typed_errors() {
        let good = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")
        };
        let cases: &[(&str, &str, Vec<u8>)] = &[
            ("format", "it ends within the header", b"\x93NUM".to_vec()),
            ("format", "does not start with", b"PK\x03\x04 and more bytes".to_vec()),
            ("format", "version 9", npy(9, "", &[])),
            ("format", "at most 1048576", {
                let mut file = npy(2, "", &[]);
                file[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
                file
            }),
            ("format", "not what NumPy writes", npy(1, "{'descr': }", &[])),
            ("format", "not what NumPy writes", npy(1, &good("'<f4'", "False", "(-1, 2)"), &[])),
            ("format", "not what NumPy writes", npy(1, &good("'<f4'", "False", "(99999999999999999999, 2)"), &[])),
            ("format", "lacks", npy(1, "{'descr': '<f4'}", &[])),
            ("format", "Fortran", npy(1, &good("'<f4'", "True", "(1, 2)"), &numbers(&[0.0; 2]))),
            ("format", "truncated", npy(1, &good("'<f4'", "False", "(2, 2)"), &numbers(&[0.0; 3]))),
            ("format", "truncated", npy(1, &good("'<f4'", "False", "(4611686018427387904, 4)"), &[])),
            ("dtype", "big-endian", npy(1, &good("'>f4'", "False", "(1, 2)"), &[])),
            ("dtype", "<i8", npy(1, &good("'<i8'", "False", "(1, 2)"), &[])),
            ("dtype", "|O", npy(1, &good("'|O'", "False", "(1, 2)"), &[])),
            ("dtype", "('a', '<f4')", npy(1, &good("[('a', '<f4'), ('b', '<f4')]", "False", "(1, 2)"), &[])),
            ("shape", "[2]", npy(1, &good("'<f4'", "False", "(2,)"), &[])),
            ("shape", "[]", npy(1, &good("'<f4'", "False", "()"), &[])),
        ];
        for (i, (kind, part, content)) in cases.iter().enumerate() {
            let file = Temporary::new(&format!("bad{i}"), content);
            let error = Block::open(&file.0).unwrap_err();
            let got = match &error {
                Error::Format { .. } => "format",
                Error::Dtype(_) => "dtype",
                Error::Shape(_) => "shape",
                _ => "other",
            };
            let message = error.to_string();
            assert_eq!(got, *kind, "{message}");
            assert!(message.contains(part) && message.contains("rsprune-"), "{message} lacks {part}");
        }
        assert!(matches!(Block::open(Path::new("/no/such.npy")), Err(Error::Io { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..Default::default() })]
        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\{\\}\\[\\]\\(\\)'\",: A-Za-z0-9<|]{0,60}|.{0,30}") {
            let fields = Parser { rest: &text }.dictionary();
            let is_dictionary = text.trim_start().starts_with('{');
            prop_assert!(fields.is_none() || is_dictionary);
        }
    }
}
