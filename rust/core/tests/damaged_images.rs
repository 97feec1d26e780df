//! Damaged files of every format are refused or decoded, and never more than that.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may")]

use proptest::prelude::*;
use rsprune_core::entropy::{self, entropy_from_input};
use rsprune_core::image::gray::Gray;
use rsprune_core::image::{GrayOptions, Input, Limits, Output, Samples, Scratch, decode};

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("images/", $name)))),*] };
}

/// 24 x 20 pixels of the Blue Marble each, by Pillow and tifffile, and waves of 27 x 21 pixels, by rasterio.
const FILES: &[(&str, &[u8])] = files![
    "alpha.webp",
    "bands.tif",
    "baseline.jpg",
    "cmyk.jpg",
    "deep.jp2",
    "double.tif",
    "flags.webp",
    "float_differences.tif",
    "gray.jpg",
    "gray2.png",
    "gray_alpha.tif",
    "interlaced16.png",
    "jpeg_bands.tif",
    "jpeg_tables.tif",
    "lossless.webp",
    "lossy.webp",
    "lzw.tif",
    "packbits.tif",
    "pages.tif",
    "palette.png",
    "plain.tif",
    "planar16.tif",
    "progressive.jpg",
    "progressive_cut.jpg",
    "restart.jpg",
    "restart_ahead.jpg",
    "rgba.png",
    "signed16.tif",
    "sparse.tif",
    "tiles.tif",
    "twelve_bits.tif",
    "zstd16.tif",
];

/// What is done to a file. Places are taken modulo its length.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u32),
    Set(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        let len = file.len().max(1);
        match *self {
            _ if file.is_empty() => {}
            Damage::Flip(at, bit) => file[at % len] ^= 1 << bit,
            Damage::Set(at, byte) => file[at % len] = byte,
            Damage::Cut(at) => file.truncate(at % len),
            Damage::Remove(at, count) => drop(file.drain(at % len..(at % len + count).min(len))),
            Damage::Repeat(at, count) => {
                let part = file[at % len..(at % len + count).min(len)].to_vec();
                file.splice(at % len..at % len, part);
            }
        }
    }
}

fn any_damage() -> impl Strategy<Value = Damage> {
    // Headers are short and decide everything: half of the damage goes there.
    let place = || prop_oneof![0..200usize, any::<usize>()];
    let byte = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop_oneof![
        4 => (place(), 0..8u32).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        4 => (place(), byte).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), 1..20usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (place(), 1..20usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

/// Decodes both ways, and to an entropy. Images that come out have as many samples as they say.
fn decode_whole(file: &[u8], limits: &Limits) -> bool {
    let options = GrayOptions::new(Gray::Bt601, None, None, Some((-10.0, 4000.0))).unwrap();
    let entropy = entropy_from_input(Input::Bytes(file), &options, limits, &mut entropy::Scratch::default());
    let sound = sound(file, limits);
    if let Ok(entropy) = entropy {
        assert!(sound && (0.0..=8.0).contains(&entropy));
    }
    sound
}

fn sound(file: &[u8], limits: &Limits) -> bool {
    [Output::Native, Output::Luma].into_iter().all(|output| {
        let Ok(image) = decode(file, output, limits, &mut Scratch::default()) else { return false };
        let samples = match &image.samples {
            Samples::U8(samples) => samples.len(),
            Samples::U16(samples) => samples.len(),
            Samples::I16(samples) => samples.len(),
            Samples::F32(samples) => samples.len(),
            Samples::F64(samples) => samples.len(),
        };
        assert_eq!(samples, image.width * image.height * image.bands);
        true
    })
}

#[test]
fn whole_files_are_decoded() {
    for (name, file) in FILES {
        assert!(decode_whole(file, &Limits::default()), "{name}");
    }
}

#[test]
fn files_cut_anywhere_do_no_harm() {
    for (name, file) in FILES {
        let decoded = (0..file.len()).filter(|&len| decode_whole(&file[..len], &Limits::default())).count();
        // Only what follows the last row may be missing.
        assert!(decoded < 200, "{name}: {decoded} of {}", file.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_do_no_harm(
        which in 0..FILES.len(),
        damage in proptest::collection::vec(any_damage(), 1..6),
    ) {
        let mut file = FILES[which].1.to_vec();
        damage.iter().for_each(|damage| damage.apply(&mut file));
        decode_whole(&file, &Limits { max_pixels: 1 << 16, ..Limits::default() });
    }
}
