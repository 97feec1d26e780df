#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rsprune_core::entropy::Levels;
use rsprune_core::image::gray::Gray;
use rsprune_core::image::{GrayOptions, Limits, Scratch, decode, gray_levels};
use rsprune_fuzz::MAX_PIXELS;

/// Every rule, as most images are read and with all that can be asked for.
static OPTIONS: LazyLock<Vec<GrayOptions>> = LazyLock::new(|| {
    let new =
        |gray, bands, nodata, range| GrayOptions::new(gray, bands, nodata, range).expect("options that go together");
    vec![
        new(Gray::Bt601, None, None, None),
        new(Gray::Luma, None, None, None),
        new(Gray::Mean, None, None, None),
        new(Gray::Bt601, Some(vec![2, 0, 1]), Some(0.0), None),
        new(Gray::Mean, Some(vec![0]), Some(255.0), Some((-100.0, 4000.0))),
    ]
});

// Rows that are reduced as they are decoded give the levels of the whole image.
fuzz_target!(|file: &[u8]| {
    let limits = Limits { max_pixels: MAX_PIXELS, ..Limits::default() };
    let mut scratch = Scratch::default();
    for options in &*OPTIONS {
        let (mut by_rows, mut whole) = (Levels::with_laplacian(), Levels::with_laplacian());
        let levels = gray_levels(file, options, &limits, &mut scratch, &mut by_rows);
        let image = decode(file, options.output(), &limits, &mut scratch);
        let expected = image.and_then(|image| options.gray_levels(image.as_ref(), &mut whole));
        assert_eq!(levels.is_ok(), expected.is_ok());
        if levels.is_ok() {
            assert_eq!(by_rows.counts(), whole.counts());
            assert_eq!(by_rows.sharpness(), whole.sharpness());
        }
    }
});
