//! Resizing as Pillow does it, to the bit, and from encoded images straight to what an encoder takes.
//!
//! Rows pass through as they are decoded: [`horizontal`] resizes four of them at a time horizontally, [`vertical`] makes a row of
//! the output as soon as the rows are there that it is made of. What is between the two is rounded to 8 bits, and there is
//! never a whole image of it. [`weights`] has the weights, [`kernels`] the sums.

mod horizontal;
mod images;
mod kernels;
mod vertical;
mod weights;

use horizontal::Horizontal;
use kernels::BANDS;
use vertical::Vertical;
use weights::Axis;

use crate::error::{Error, Result};
use crate::image::{self, memory};
use crate::runtime::cpu::Level;

pub use images::resize_inputs;
pub use weights::Filter;

/// The most that a buffer keeps from one image to the next. The rest is given back.
const KEPT_BYTES: usize = 16 << 20;

impl Filter {
    /// The filter of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] when there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "bilinear" => Ok(Self::Bilinear),
            "bicubic" => Ok(Self::Bicubic),
            _ => Err(Error::Argument(format!("interpolation={name:?} is unknown: it is \"bicubic\" or \"bilinear\""))),
        }
    }
}

/// How an image of any shape is resized before the square is cut from its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Both sides are brought to so many pixels, whatever their ratio.
    Squash(usize),
    /// The shorter side is brought to so many pixels and the longer one in proportion, cut down to whole pixels.
    Crop(usize),
}

/// Where the middle begins when the margin is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// At the even one of the two places, as torchvision's `CenterCrop` has it.
    Even,
    /// At the first of the two places, as the transformers library has it.
    First,
}

impl Middle {
    /// The middle of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] when there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "even" => Ok(Self::Even),
            "first" => Ok(Self::First),
            _ => Err(Error::Argument(format!("middle={name:?} is unknown: it is \"even\" or \"first\""))),
        }
    }
}

/// The size and shape that images are resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    size: usize,
    fit: Fit,
    middle: Middle,
    filter: Filter,
}

impl Target {
    /// Squares of `size` pixels.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] for a size of zero, and for sides that a square of that size cannot be cut from.
    pub fn new(size: usize, fit: Fit, middle: Middle, filter: Filter) -> Result<Self> {
        match fit {
            _ if size == 0 => Err(Error::Argument("size=0 leaves nothing of an image".into())),
            Fit::Squash(side) | Fit::Crop(side) if side < size => Err(Error::Argument(format!(
                "resize_to={side} is less than size={size}: the square is cut from what was resized"
            ))),
            _ => Ok(Target { size, fit, middle, filter }),
        }
    }

    /// Bytes of a resized image.
    pub fn bytes(&self) -> usize {
        self.size * self.size * BANDS
    }

    /// The resizes of `width` and of `height`.
    fn axes(&self, width: usize, height: usize) -> (Axis, Axis) {
        let size = self.size;
        let (full_width, full_height) = match self.fit {
            Fit::Squash(side) => (side, side),
            Fit::Crop(side) => {
                let long = |long: usize, short: usize| (side as f64 * long as f64 / short as f64) as usize;
                if width <= height { (side, long(height, width)) } else { (long(width, height), side) }
            }
        };
        let axis = |input: usize, full: usize| {
            let margin = full - size;
            let first = match self.middle {
                Middle::Even => margin / 2 + (margin % 2) * (margin / 2 % 2),
                Middle::First => margin / 2,
            };
            Axis { input, full, first, count: size }
        };
        (axis(width, full_width), axis(height, full_height))
    }
}

/// Resizes images of red, green and blue, one after the other, row by row. Many of one size share their weights, and the
/// memory is that of the first.
#[derive(Debug)]
pub struct Resizer {
    target: Target,
    horizontal: Horizontal,
    vertical: Vertical,
    width: usize,
    /// The number of the next row.
    row: usize,
    /// Whether the vertical pass comes first.
    vertical_first: bool,
}

impl Resizer {
    /// Resizes to `target`, by the kernels of a `level`.
    pub fn new(target: Target, level: Level) -> Self {
        let (horizontal, vertical) = (Horizontal::new(target.filter, level), Vertical::new(target.filter, level));
        Resizer { target, horizontal, vertical, width: 0, row: 0, vertical_first: false }
    }

    /// Starts the next image, of at least one pixel.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutOfMemory`](crate::error::ImageError::OutOfMemory).
    pub fn start(&mut self, width: usize, height: usize) -> image::Result<()> {
        let (horizontal, vertical) = self.target.axes(width, height);
        (self.width, self.row) = (width, 0);
        self.vertical_first = goes_vertical_first(horizontal, vertical);
        self.horizontal.start(horizontal)?;
        self.vertical.start(vertical, if self.vertical_first { BANDS * width } else { BANDS * self.target.size })
    }

    /// Takes the next row: `write` sets all of its samples, interleaved. It is not called for a row that does not count.
    /// The rows of the output go to `out`, [`Target::bytes`] long, the last of them when all rows of the input are there.
    pub fn push(&mut self, out: &mut [u8], write: impl FnOnce(&mut [u8])) {
        let needed = self.vertical.needed();
        if needed.contains(&self.row) {
            let last = self.row + 1 == needed.end;
            if self.vertical_first {
                self.push_vertical(out, write);
            } else {
                self.push_horizontal(out, write, last);
            }
        }
        self.row += 1;
    }

    fn push_horizontal(&mut self, out: &mut [u8], write: impl FnOnce(&mut [u8]), last: bool) {
        write(self.horizontal.next_row());
        if self.horizontal.is_full() || last {
            let waiting = self.horizontal.waiting();
            self.horizontal.pass(&mut self.vertical.next_rows());
            self.vertical.add(waiting);
            let rows = out.chunks_exact_mut(BANDS * self.target.size).skip(self.vertical.done());
            for row in rows {
                if !self.vertical.pass(row) {
                    break;
                }
            }
        }
    }

    fn push_vertical(&mut self, out: &mut [u8], write: impl FnOnce(&mut [u8])) {
        write(&mut self.vertical.next_rows().bytes[..BANDS * self.width]);
        self.vertical.add(1);
        while self.vertical.is_ready() {
            self.vertical.pass(self.horizontal.next_row());
            if self.horizontal.is_full() || self.vertical.done() == self.target.size {
                let length = BANDS * self.target.size;
                let start = (self.vertical.done() - self.horizontal.waiting()) * length;
                self.horizontal.pass_to(&mut out[start..self.vertical.done() * length], length);
            }
        }
    }
}

/// Whether Pillow's vertical pass comes first: the height shrinks, and by more than twice as many pixels as the width
/// (Pillow from 13 on; before, the horizontal one always did).
fn goes_vertical_first(horizontal: Axis, vertical: Axis) -> bool {
    vertical.input > vertical.full && vertical.input + 2 * horizontal.full > 2 * horizontal.input + vertical.full
}

/// Makes a buffer so long. What it held has no meaning.
fn fit(buffer: &mut Vec<u8>, length: usize) -> image::Result<()> {
    buffer.truncate(length);
    buffer.shrink_to(KEPT_BYTES);
    memory::resize(buffer, length, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every sum of the formulas, a sample at a time, of whole images.
    fn one_by_one(target: Target, width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
        let pass = |axis: Axis, samples: &dyn Fn(usize) -> i64| -> Vec<u8> {
            let scale = axis.input as f64 / axis.full as f64;
            let stretch = scale.max(1.0);
            let support = if target.filter == Filter::Bicubic { 2.0 } else { 1.0 } * stretch;
            let of_place = |place: usize| {
                let center = (place as f64 + 0.5) * scale;
                let start = ((center - support + 0.5) as i64).max(0) as usize;
                let end = ((center + support + 0.5) as usize).min(axis.input);
                let weight = |i: usize| target.filter.weight((i as f64 - center + 0.5) * (1.0 / stretch));
                let total: f64 = (start..end).map(weight).sum();
                // Half away from zero.
                let rounded = |i: usize| (weight(i) / total * f64::from(1 << 22)).round() as i64;
                let sum: i64 = (start..end).map(|i| rounded(i) * samples(i)).sum();
                ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
            };
            (axis.first..axis.first + axis.count).map(of_place).collect()
        };
        let (horizontal, vertical) = target.axes(width, height);
        if goes_vertical_first(horizontal, vertical) {
            // The same of the image that is mirrored at its diagonal.
            let mirrored = |pixels: &[u8], width: usize, height: usize| -> Vec<u8> {
                let places = (0..width).flat_map(|x| (0..height).map(move |y| y * width + x));
                places.flat_map(|place| pixels[BANDS * place..][..BANDS].iter().copied()).collect()
            };
            let out = in_turn(&pass, (vertical, horizontal), target.size, &mirrored(pixels, width, height));
            return mirrored(&out, target.size, target.size);
        }
        in_turn(&pass, (horizontal, vertical), target.size, pixels)
    }

    /// One pass along the rows, then another.
    fn in_turn(
        pass: &impl Fn(Axis, &dyn Fn(usize) -> i64) -> Vec<u8>,
        (horizontal, vertical): (Axis, Axis),
        size: usize,
        pixels: &[u8],
    ) -> Vec<u8> {
        let (width, height) = (horizontal.input, vertical.input);
        let mut rows = vec![0; size * height * BANDS];
        for (y, band) in (0..height).flat_map(|y| (0..BANDS).map(move |band| (y, band))) {
            let row = pass(horizontal, &|x| pixels[(y * width + x) * BANDS + band].into());
            row.iter().enumerate().for_each(|(x, &sample)| rows[(y * size + x) * BANDS + band] = sample);
        }
        let mut out = vec![0; size * size * BANDS];
        for column in 0..size * BANDS {
            let samples = pass(vertical, &|y| rows[y * size * BANDS + column].into());
            samples.iter().enumerate().for_each(|(y, &sample)| out[y * size * BANDS + column] = sample);
        }
        out
    }

    fn resize(resizer: &mut Resizer, width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
        let mut out = vec![1; resizer.target.bytes()];
        resizer.start(width, height).unwrap();
        for row in pixels.chunks_exact(BANDS * width).take(height) {
            resizer.push(&mut out, |to| to.copy_from_slice(row));
        }
        out
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        // Extremes overshoot most.
        (0..length as u64)
            .map(|i| match crate::runtime::rng::hash64(seed, i) % 4 {
                0 => 0,
                1 => 255,
                _ => (crate::runtime::rng::hash64(seed, i) >> 32) as u8,
            })
            .collect()
    }

    fn any_target() -> impl Strategy<Value = Target> {
        let middle = prop_oneof![Just(Middle::Even), Just(Middle::First)];
        let more = prop_oneof![Just(0), 0..20usize];
        (1..50usize, more, any::<bool>(), middle, any::<bool>()).prop_map(|(size, more, squash, middle, bicubic)| {
            let fit = if squash { Fit::Squash(size + more) } else { Fit::Crop(size + more) };
            Target::new(size, fit, middle, if bicubic { Filter::Bicubic } else { Filter::Bilinear }).unwrap()
        })
    }

    fn any_extent() -> impl Strategy<Value = (usize, usize)> {
        let side = || prop_oneof![1..8usize, 1..100usize, 1..400usize];
        (side(), side())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_kernel_gives_the_sums_of_the_formulas(
            target in any_target(),
            extents in proptest::collection::vec(any_extent(), 1..4),
            seed in any::<u64>(),
        ) {
            let levels = Level::present();
            let mut resizers: Vec<_> = levels.map(|level| (level, Resizer::new(target, level))).collect();
            // One after the other with the same memory, the first one twice.
            for &(width, height) in extents.iter().chain(&extents[..1]) {
                let pixels = noise(seed, width * height * BANDS);
                let want = one_by_one(target, width, height, &pixels);
                for (level, resizer) in &mut resizers {
                    let got = resize(resizer, width, height, &pixels);
                    prop_assert!(got == want, "{level:?} {target:?} {width} x {height}");
                }
            }
        }
    }

    #[test]
    fn rows_between_the_passes_stay_few() {
        for (size, width, height) in [(4, 1, 100_000), (64, 4000, 2000), (64, 40, 4000)] {
            let target = Target::new(size, Fit::Squash(size), Middle::Even, Filter::Bicubic).unwrap();
            let mut resizer = Resizer::new(target, Level::Scalar);
            let pixels = noise(1, BANDS * width * height);
            assert_eq!(resize(&mut resizer, width, height, &pixels), one_by_one(target, width, height, &pixels));
            let row = if resizer.vertical_first { BANDS * width } else { BANDS * size };
            assert!(resizer.vertical.held_bytes() <= (height * 4 / size + 100) * (row + 64));
        }
    }

    #[test]
    fn the_square_is_cut_where_torchvision_or_transformers_cuts_it() {
        let first = |width, height, size, fit, middle| {
            let (horizontal, vertical) = Target::new(size, fit, middle, Filter::Bicubic).unwrap().axes(width, height);
            ((horizontal.full, horizontal.first), (vertical.full, vertical.first))
        };
        // int(256 * 301 / 200) = 385; round(80.5) and round(161 / 2) are even.
        assert_eq!(first(301, 200, 224, Fit::Crop(256), Middle::Even), ((385, 80), (256, 16)));
        assert_eq!(first(200, 200, 224, Fit::Crop(224), Middle::Even), ((224, 0), (224, 0)));
        assert_eq!(first(10, 23, 10, Fit::Crop(10), Middle::Even), ((10, 0), (23, 6)));
        assert_eq!(first(10, 25, 10, Fit::Crop(10), Middle::Even), ((10, 0), (25, 8)));
        assert_eq!(first(10, 25, 10, Fit::Crop(10), Middle::First), ((10, 0), (25, 7)));
        assert_eq!(first(300, 20, 10, Fit::Squash(17), Middle::Even), ((17, 4), (17, 4)));
        assert_eq!(first(300, 20, 10, Fit::Squash(17), Middle::First), ((17, 3), (17, 3)));
    }

    #[test]
    fn sizes_that_cannot_be() {
        assert!(Target::new(0, Fit::Squash(0), Middle::Even, Filter::Bicubic).is_err());
        assert!(Target::new(224, Fit::Squash(223), Middle::Even, Filter::Bicubic).is_err());
        let message = Target::new(224, Fit::Crop(223), Middle::Even, Filter::Bicubic).unwrap_err().to_string();
        assert!(message.contains("resize_to=223") && message.contains("size=224"), "{message}");
        assert!(Filter::from_name("nearest").unwrap_err().to_string().contains("nearest"));
    }
}
