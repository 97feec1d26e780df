//! Names of formats that are not read, for messages.

/// First bytes, and whose they are. The first that fits counts.
const NAMES: &[(&[u8], &str)] = &[
    (b"BM", "BMP"),
    (b"GIF87a", "GIF (GIF87a)"),
    (b"GIF89a", "GIF (GIF89a)"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\x01\0", "an icon"),
    (b"P1", "PBM"),
    (b"P2", "PGM"),
    (b"P3", "PPM"),
    (b"P4", "PBM"),
    (b"P5", "PGM"),
    (b"P6", "PPM"),
    (b"P7", "PAM"),
    (b"PF", "PFM"),
    (b"Pf", "PFM"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x0e\x03\x13\x01", "HDF4"),
    (b"CDF\x01", "NetCDF"),
    (b"CDF\x02", "NetCDF"),
    (b"CDF\x05", "NetCDF"),
    (b"GRIB", "GRIB"),
    (b"NITF", "NITF"),
    (b"NSIF", "NITF"),
    (b"EHFA_HEADER_TAG", "Erdas Imagine"),
    (b"msid", "MrSID"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"RIFF", "another RIFF file than WebP"),
];

/// First bytes of text, in lower case.
const TEXTS: &[(&str, &str)] = &[
    ("<!doctype html", "HTML"),
    ("<html", "HTML"),
    ("<svg", "SVG"),
    ("<?xml", "XML"),
    ("<", "markup"),
    ("{", "JSON"),
    ("version https://git-lfs", "a Git LFS pointer: fetch the image with `git lfs pull`"),
];

/// Brands of files that consist of boxes, as video does.
const BRANDS: &[(&[u8; 4], &str)] = &[
    (b"avif", "AVIF"),
    (b"avis", "AVIF"),
    (b"heic", "HEIF"),
    (b"heix", "HEIF"),
    (b"hevc", "HEIF"),
    (b"heim", "HEIF"),
    (b"heis", "HEIF"),
    (b"mif1", "HEIF"),
    (b"msf1", "HEIF"),
];

/// The name of the format that `bytes` are of. Nothing of them is quoted: a file that is no image may hold anything.
pub fn describe(bytes: &[u8]) -> String {
    if let Some((_, name)) = NAMES.iter().find(|(start, _)| bytes.starts_with(start)) {
        return (*name).into();
    }
    if let [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] = bytes {
        let brand = brand.first_chunk::<4>();
        let name = brand.and_then(|brand| BRANDS.iter().find(|(other, _)| *other == brand));
        return name.map_or("a video or another file of boxes", |(_, name)| name).into();
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let starts = |start: &str| text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start.as_bytes()));
    if let Some((_, name)) = TEXTS.iter().find(|(start, _)| starts(start)) {
        return (*name).into();
    }
    if bytes.iter().take(12).all(|&byte| byte == 0) {
        return "zeros".into();
    }
    let is_text = bytes.iter().take(64).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if is_text { "text" } else { "a file of an unknown format" }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_their_names() {
        for (bytes, name) in [
            (&b"BM6\x90\0\0"[..], "BMP"),
            (b"GIF89a....", "GIF (GIF89a)"),
            (b"\0\0\0\x0cjP  \r\n\x87\n\0\0", "JPEG 2000"),
            (b"\0\0\0\x18ftypheic\0\0", "HEIF"),
            (b"\0\0\0\x1cftypavif\0\0", "AVIF"),
            (b"\0\0\0\x1cftyp", "a video or another file of boxes"),
            (b"\n<!DOCTYPE HTML>", "HTML"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: fetch the image with `git lfs pull`"),
            (b"\0\0\0\0", "zeros"),
            (b"password: 1234\n", "text"),
            (b"\x01\x02\xff\xfe", "a file of an unknown format"),
        ] {
            assert_eq!(describe(bytes), name);
        }
    }
}
