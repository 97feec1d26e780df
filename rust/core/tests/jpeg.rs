//! The JPEG decoder against pixels that Pillow 13 (libjpeg-turbo 3.2) decoded, and against damaged files.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may")]

use proptest::prelude::*;
use rsprune_core::error::ImageError;
use rsprune_core::image::gray::Gray;
use rsprune_core::image::jpeg::{Color, Output, RowSink, Scratch, decode, decode_into, decode_rows, gray_levels};
use rsprune_core::image::{GrayOptions, Image, LevelSink, Limits, Result, Samples};

/// A file, its width and height, and the FNV-1a digests of its samples, native and luma.
type Golden = (&'static [u8], (usize, usize), u64, u64);

/// 4:2:0 with restart markers behind every second MCU; progressive; one sequential scan a component; four inks.
const GOLDEN: [Golden; 4] = [
    (BASELINE, (43, 35), 0xdb5d_72f0_9348_90f9, 0x7289_7761_954f_be9e),
    (PROGRESSIVE, (33, 25), 0x3966_1c62_c24f_151f, 0x098f_38a6_1e3d_d9ff),
    (SCANS, (21, 19), 0x8e0e_a0e5_9993_6960, 0x97c6_14cb_5029_f6de),
    (CMYK, (19, 17), 0xe191_1496_c75b_f7ea, 0xe191_1496_c75b_f7ea),
];
const BASELINE: &[u8] = include_bytes!("../../../tests/golden/jpeg/baseline_420.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("../../../tests/golden/jpeg/progressive_444.jpg");
const SCANS: &[u8] = include_bytes!("../../../tests/golden/jpeg/scans_440.jpg");
const CMYK: &[u8] = include_bytes!("../../../tests/golden/jpeg/cmyk.jpg");

fn run(bytes: &[u8], output: Output) -> Result<Image> {
    decode(bytes, output, &Limits::default(), &mut Scratch::default())
}

fn samples(image: Image) -> Vec<u8> {
    match image.samples {
        Samples::U8(samples) => samples,
        _ => panic!("JPEG samples are bytes"),
    }
}

fn digest(samples: &[u8]) -> u64 {
    samples.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &v| (hash ^ u64::from(v)).wrapping_mul(0x100_0000_01b3))
}

/// Where the first marker with this code stands.
fn find(bytes: &[u8], code: u8) -> usize {
    bytes.windows(2).position(|pair| pair == [0xff, code]).unwrap()
}

#[test]
fn samples_are_those_of_pillow() {
    let mut scratch = Scratch::default();
    for (bytes, (width, height), native, luma) in GOLDEN {
        for (output, want) in [(Output::Native, native), (Output::Luma, luma)] {
            let image = decode(bytes, output, &Limits::default(), &mut scratch).unwrap();
            // Four inks have no luminance plane: they come whole.
            let gray = output == Output::Luma && native != luma;
            assert_eq!((image.width, image.height, image.bands), (width, height, if gray { 1 } else { 3 }));
            assert_eq!(digest(&samples(image)), want);
        }
    }
}

#[test]
fn memory_that_was_used_before_changes_nothing() {
    let (mut scratch, mut used) = (Scratch::default(), vec![7; 100_000]);
    for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
        for (bytes, _, native, _) in [GOLDEN[i], GOLDEN[j]] {
            decode_into(bytes, Output::Native, &Limits::default(), &mut scratch, &mut used).unwrap();
            assert_eq!(digest(&used), native);
            assert!(decode(&bytes[..bytes.len() / 2], Output::Native, &Limits::default(), &mut scratch).is_err());
        }
    }
}

#[test]
fn rows_come_in_order_and_once() {
    struct Rows(Option<(usize, usize, Color)>, Vec<u8>);
    impl RowSink for Rows {
        fn start(&mut self, width: usize, height: usize, color: Color) -> Result<(), ImageError> {
            assert_eq!(self.0.replace((width, height, color)), None);
            Ok(())
        }
        fn row(&mut self, planes: [&[u8]; 4]) {
            self.1.extend_from_slice(planes[0]);
        }
    }
    let (bytes, (width, height), _, luma) = GOLDEN[0];
    for (output, color) in [(Output::Luma, Color::Gray), (Output::Native, Color::YCbCr)] {
        let mut rows = Rows(None, Vec::new());
        decode_rows(bytes, output, &Limits::default(), &mut Scratch::default(), &mut rows).unwrap();
        assert_eq!((rows.0, digest(&rows.1)), (Some((width, height, color)), luma));
    }
}

#[test]
fn levels_row_by_row_are_those_of_the_whole_image() {
    struct Counts([usize; 256]);
    impl LevelSink for Counts {
        fn add(&mut self, levels: &[u8]) {
            levels.iter().for_each(|&level| self.0[usize::from(level)] += 1);
        }
        fn add_with(&mut self, number: usize, write: impl FnOnce(&mut [u8])) {
            let mut levels = vec![0; number];
            write(&mut levels);
            self.add(&levels);
        }
        fn remove(&mut self, level: u8, count: usize) {
            self.0[usize::from(level)] -= count;
        }
    }
    let (limits, mut scratch) = (Limits::default(), Scratch::default());
    let bands = [None, Some(vec![2, 0, 1]), Some(vec![1])];
    for (bytes, ..) in GOLDEN {
        for gray in [Gray::Bt601, Gray::Luma, Gray::Mean] {
            for (bands, nodata) in bands.iter().flat_map(|bands| [(bands, None), (bands, Some(80.0))]) {
                let options = GrayOptions::new(gray, bands.clone(), nodata, None).unwrap();
                let (mut got, mut want) = (Counts([0; 256]), Counts([0; 256]));
                gray_levels(bytes, &options, &limits, &mut scratch, &mut got).unwrap();
                let image = decode(bytes, options.output(), &limits, &mut scratch).unwrap();
                options.gray_levels(image.as_ref(), &mut want).unwrap();
                assert_eq!(got.0, want.0, "{gray:?} {bands:?} {nodata:?}");
            }
        }
        // The range of 16-bit samples is none of a JPEG's business.
        let levels = |range| {
            let (options, mut counts) = (GrayOptions::new(Gray::Bt601, None, None, range).unwrap(), Counts([0; 256]));
            gray_levels(bytes, &options, &limits, &mut Scratch::default(), &mut counts).unwrap();
            counts.0
        };
        assert_eq!(levels(Some((0.0, 9.0))), levels(None));
    }
}

#[test]
fn every_cut_is_truncated_or_whole() {
    for (bytes, _, native, _) in GOLDEN {
        for end in 1..bytes.len() {
            match run(&bytes[..end], Output::Native) {
                Ok(image) => {
                    assert!(end >= bytes.len() - 2, "{end} of {} bytes are no whole image", bytes.len());
                    assert_eq!(digest(&samples(image)), native);
                }
                Err(error) => assert_eq!(error.kind(), "truncated", "{end} of {} bytes: {error}", bytes.len()),
            }
        }
    }
}

#[test]
fn an_end_of_image_marker_too_early_is_truncated() {
    for bytes in [BASELINE, CMYK] {
        // An odd 0xFF before it would make it data.
        let cuts = (find(bytes, 0xda) + 14..bytes.len() - 3).filter(|&end| bytes[end - 1] != 0xff);
        for end in cuts {
            let cut = [&bytes[..end], &[0xff, 0xd9]].concat();
            let error = run(&cut, Output::Native).unwrap_err();
            assert_eq!(error.kind(), "truncated", "cut at {end}: {error}");
        }
    }
}

/// The first golden file with bytes changed, `offset` behind the start of a marker.
fn patched(marker: u8, offset: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = BASELINE.to_vec();
    let at = find(BASELINE, marker) + offset;
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn a_missing_huffman_table_is_the_standard_one() {
    // The table becomes a comment.
    let image = run(&patched(0xc4, 1, &[0xfe]), Output::Native).unwrap();
    assert_eq!(digest(&samples(image)), GOLDEN[0].2);
}

#[test]
fn each_fault_has_its_own_error() {
    let cases = [
        (vec![], "empty", "0 bytes"),
        (b"no image".to_vec(), "corrupt", "SOI"),
        (vec![0xff, 0xd8, 0xff, 0xd9], "corrupt", "no image"),
        (patched(0xc0, 1, &[0xc9]), "unsupported", "arithmetic"),
        (patched(0xc0, 1, &[0xc3]), "unsupported", "lossless"),
        (patched(0xc0, 1, &[0xc5]), "unsupported", "hierarchical"),
        (patched(0xc0, 4, &[12]), "unsupported", "12 bits"),
        (patched(0xc0, 5, &[0, 0]), "unsupported", "DNL"),
        (patched(0xc0, 7, &[0, 0]), "corrupt", "width"),
        (patched(0xc0, 9, &[2]), "unsupported", "2 components"),
        (patched(0xc0, 11, &[0x52]), "corrupt", "5 x 2"),
        (patched(0xc0, 14, &[0x31]), "unsupported", "no whole ratio"),
        (patched(0xc0, 5, &[0xff, 0xff, 0xff, 0xff]), "too_large", "65535 x 65535"),
        (patched(0xc0, 5, &[0x20, 0, 0x20, 0]), "truncated", "declared size"),
        (patched(0xda, 5, &[9]), "corrupt", "component 9"),
        (patched(0xd1, 1, &[0xc5]), "corrupt", "FFC5"),
    ];
    for (bytes, kind, detail) in cases {
        let error = run(&bytes, Output::Native).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(detail), "{error} does not say {detail}");
    }
}

#[test]
fn restart_markers_out_of_order_are_taken_as_libjpeg_takes_them() {
    let decoded = |bytes: &[u8]| digest(&samples(run(bytes, Output::Native).unwrap()));
    // Neither the expected one nor its neighbors: it is taken for the expected one.
    assert_eq!(decoded(&patched(0xd1, 1, &[0xd4])), GOLDEN[0].2);
    // One that comes twice: what follows it stands in the next segment's place, which is found again behind.
    let at = find(BASELINE, 0xd1);
    let twice = [&BASELINE[..at], &BASELINE[at..at + 2], &BASELINE[at..]].concat();
    let missing = [&BASELINE[..at], &BASELINE[at + 2..]].concat();
    for damaged in [twice, missing, patched(0xd1, 1, &[0xd3])] {
        assert_ne!(decoded(&damaged), GOLDEN[0].2);
    }
}

#[test]
fn an_end_behind_a_whole_scan_is_the_end() {
    for bytes in [PROGRESSIVE, SCANS] {
        let mut ends: Vec<_> = (0..bytes.len() - 1).filter(|&i| bytes[i..i + 2] == [0xff, 0xda]).collect();
        ends.push(bytes.len() - 2);
        let mut digests = Vec::new();
        for &end in &ends[1..] {
            // Tables for the next scan may stand before it.
            let whole = [&bytes[..end], &[0xff, 0xd9]].concat();
            let image = run(&whole, Output::Native).unwrap();
            let luma = run(&whole, Output::Luma).unwrap();
            assert_eq!((image.width, image.height), (luma.width, luma.height));
            digests.push(digest(&samples(image)));
            assert_eq!(run(&bytes[..end], Output::Native).map(|_| ()).is_ok(), end == bytes.len() - 2);
        }
        assert_eq!(digests.last(), Some(if bytes == SCANS { &GOLDEN[2].2 } else { &GOLDEN[1].2 }));
        digests.dedup();
        assert!(digests.len() > 1, "scans show");
    }
}

#[test]
fn the_limit_is_checked_first() {
    let limits = Limits { max_pixels: 43 * 35 - 1, ..Limits::default() };
    let error = decode(BASELINE, Output::Native, &limits, &mut Scratch::default()).unwrap_err();
    assert_eq!(error, ImageError::TooLarge { width: 43, height: 35, limit: 43 * 35 - 1 });
}

#[test]
fn garbage_before_markers_and_fill_bytes_are_passed_over() {
    let (bytes, _, native, _) = GOLDEN[0];
    let frame = find(bytes, 0xc0);
    let with = [&bytes[..frame], &[1, 2, 3, 0xff, 0xff], &bytes[frame..]].concat();
    assert_eq!(digest(&samples(run(&with, Output::Native).unwrap())), native);
}

#[test]
fn a_scan_that_comes_again_is_refused() {
    for bytes in [PROGRESSIVE, SCANS] {
        let first = find(bytes, 0xda);
        let next = first + 2 + find(&bytes[first + 2..], if bytes == SCANS { 0xda } else { 0xc4 });
        let again = [&bytes[..next], &bytes[first..next].repeat(1000)].concat();
        assert_eq!(run(&again, Output::Native).unwrap_err().kind(), "corrupt");
    }
}

proptest! {
    #[test]
    fn damaged_files_give_an_image_or_an_error(
        file in 0usize..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        luma in any::<bool>(),
    ) {
        let mut bytes = GOLDEN[file].0.to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
        let output = if luma { Output::Luma } else { Output::Native };
        if let Ok(image) = decode(&bytes, output, &limits, &mut Scratch::default()) {
            let (width, height, bands) = (image.width, image.height, image.bands);
            prop_assert_eq!(samples(image).len(), width * height * bands);
        }
    }

    #[test]
    fn any_bytes_behind_a_header_give_an_image_or_an_error(
        file in 0usize..4,
        data in prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(0xff)], 0..400),
    ) {
        let bytes = GOLDEN[file].0;
        let bytes = [&bytes[..find(bytes, 0xda) + 14], &data].concat();
        if let Err(error) = run(&bytes, Output::Native) {
            prop_assert!(matches!(error.kind(), "corrupt" | "truncated" | "unsupported"), "{}", error);
        }
    }
}
