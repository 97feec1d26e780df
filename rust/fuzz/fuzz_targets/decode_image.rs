#![no_main]

use libfuzzer_sys::fuzz_target;
use rsprune_core::image::{Limits, Output, Scratch, decode};
use rsprune_fuzz::MAX_PIXELS;

fuzz_target!(|file: &[u8]| {
    let limits = Limits { max_pixels: MAX_PIXELS, ..Limits::default() };
    let mut scratch = Scratch::default();
    let _ = decode(file, Output::Native, &limits, &mut scratch);
    let _ = decode(file, Output::Luma, &limits, &mut scratch);
});
