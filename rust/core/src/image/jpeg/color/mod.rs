//! Color conversion of rows: planes to interleaved RGB, in libjpeg's 16-bit fixed point, or to gray levels.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::frame::{Color, MAX_COMPONENTS};
use crate::image::gray::weighted;
use crate::runtime::cpu::{Level, dispatch};

/// The factors of ITU-R BT.601, full range (JFIF 1.02), with 16 bits behind the point.
const RED_BY_CR: i32 = 91_881;
const GREEN_BY_CB: i32 = -22_554;
const GREEN_BY_CR: i32 = -46_802;
const BLUE_BY_CB: i32 = 116_130;

/// Red, green and blue of one pixel.
#[inline(always)]
fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let sample = |x: i32| (y + ((x + 0x8000) >> 16)).clamp(0, 255) as u8;
    [sample(RED_BY_CR * cr), sample(GREEN_BY_CB * cb + GREEN_BY_CR * cr), sample(BLUE_BY_CB * cb)]
}

/// Planes of any color space to pixels: gray, or red, green and blue.
pub fn interleave(level: Level, color: Color, [a, b, c, d]: [&[u8]; MAX_COMPONENTS], out: &mut [u8]) {
    match color {
        Color::Gray => out.copy_from_slice(a),
        Color::Rgb => rgb_from_planes(a, b, c, out),
        Color::YCbCr => rgb_from_ycbcr(level, a, b, c, out),
        Color::Cmyk => rgb_from_cmyk(a, b, c, d, out),
        Color::Ycck => rgb_from_ycck(a, b, c, d, out),
        Color::Bands(bands) => {
            for (band, plane) in [a, b, c, d].into_iter().take(bands).enumerate() {
                out.iter_mut().skip(band).step_by(bands).zip(plane).for_each(|(to, &from)| *to = from);
            }
        }
    }
}

dispatch! {
    /// YCbCr to the gray levels, by BT.601, of the RGB that it stands for.
    pub fn levels_from_ycbcr(level: Level, y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
        Avx2 => avx2::levels_from_ycbcr(y, cb, cr, out),
        Scalar => {
            for (((out, &y), &cb), &cr) in out.iter_mut().zip(y).zip(cb).zip(cr) {
                *out = weighted(rgb(y, cb, cr));
            }
        },
    }
}

dispatch! {
    /// YCbCr to RGB. `out` holds three bytes a pixel.
    fn rgb_from_ycbcr(level: Level, y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
        Avx2 => avx2::rgb_from_ycbcr(y, cb, cr, out),
        Scalar => {
            for (((pixel, &y), &cb), &cr) in out.chunks_exact_mut(3).zip(y).zip(cb).zip(cr) {
                pixel.copy_from_slice(&rgb(y, cb, cr));
            }
        },
    }
}

/// Planes of red, green and blue to pixels.
fn rgb_from_planes(r: &[u8], g: &[u8], b: &[u8], out: &mut [u8]) {
    for (((pixel, &r), &g), &b) in out.chunks_exact_mut(3).zip(r).zip(g).zip(b) {
        pixel.copy_from_slice(&[r, g, b]);
    }
}

/// Four inks to RGB, as Pillow does it: the file's values are taken for inverted, whatever its markers say.
fn rgb_from_cmyk(c: &[u8], m: &[u8], y: &[u8], k: &[u8], out: &mut [u8]) {
    let inks = c.iter().zip(m).zip(y).zip(k);
    for (pixel, (((&c, &m), &y), &k)) in out.chunks_exact_mut(3).zip(inks) {
        pixel.copy_from_slice(&[c, m, y].map(|ink| under_black(255 - ink, k)));
    }
}

/// Four inks of which three are coded as YCbCr to RGB.
fn rgb_from_ycck(y: &[u8], cb: &[u8], cr: &[u8], k: &[u8], out: &mut [u8]) {
    let inks = y.iter().zip(cb).zip(cr).zip(k);
    for (pixel, (((&y, &cb), &cr), &k)) in out.chunks_exact_mut(3).zip(inks) {
        pixel.copy_from_slice(&rgb(y, cb, cr).map(|ink| under_black(ink, k)));
    }
}

/// What `ink` leaves of the light `white` that black ink leaves: `white - ink * white / 255`, rounded.
fn under_black(ink: u8, white: u8) -> u8 {
    let product = u32::from(ink) * u32::from(white) + 128;
    let absorbed = ((product >> 8) + product) >> 8;
    white.saturating_sub(absorbed as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cpu;

    #[test]
    fn colors_are_those_of_the_real_formula() {
        for y in (0..=255).step_by(5) {
            for cb in 0..=255u8 {
                for cr in 0..=255u8 {
                    let (u, v) = (f64::from(cb) - 128.0, f64::from(cr) - 128.0);
                    let real = [1.402 * v, -0.344136 * u - 0.714136 * v, 1.772 * u].map(|x| f64::from(y) + x);
                    for (got, real) in rgb(y, cb, cr).into_iter().zip(real) {
                        let off = (f64::from(got) - real.clamp(0.0, 255.0)).abs();
                        assert!(off < 0.51, "{y} {cb} {cr}: {got} for {real}");
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_agree_on_all_colors() {
        let all: Vec<u8> = (0..=255).collect();
        for y in 0..=255u8 {
            for cb in 0..=255u8 {
                let (ys, cbs) = ([y; 256], [cb; 256]);
                let mut rows = [([0; 768], [0; 256]); 2];
                for (level, (rgb, levels)) in [Level::Scalar, cpu::active()].into_iter().zip(&mut rows) {
                    rgb_from_ycbcr(level, &ys, &cbs, &all, rgb);
                    levels_from_ycbcr(level, &ys, &cbs, &all, levels);
                }
                assert_eq!(rows[0], rows[1], "y {y} cb {cb}");
                assert!(rows[0].0.as_chunks().0.iter().zip(rows[0].1).all(|(&rgb, level)| weighted(rgb) == level));
            }
        }
    }

    #[test]
    fn kernels_agree_at_every_width() {
        let plane = |step: usize| -> Vec<u8> { (0..100).map(|i| (i * step) as u8).collect() };
        let (y, cb, cr) = (plane(7), plane(31), plane(57));
        for width in 0..100 {
            let mut rows = [(vec![0; 3 * width], vec![0; width]), (vec![0; 3 * width], vec![0; width])];
            for (level, (rgb, levels)) in [Level::Scalar, cpu::active()].into_iter().zip(&mut rows) {
                rgb_from_ycbcr(level, &y[..width], &cb[..width], &cr[..width], rgb);
                levels_from_ycbcr(level, &y[..width], &cb[..width], &cr[..width], levels);
            }
            assert_eq!(rows[0], rows[1], "width {width}");
        }
    }

    #[test]
    fn inks_absorb_light() {
        assert_eq!([under_black(0, 200), under_black(255, 200), under_black(128, 255)], [200, 0, 127]);
        let mut pixel = [0; 3];
        rgb_from_cmyk(&[255], &[0], &[255], &[255], &mut pixel);
        assert_eq!(pixel, [255, 0, 255]);
        rgb_from_ycck(&[90], &[128], &[128], &[0], &mut pixel);
        assert_eq!(pixel, [0, 0, 0]);
    }
}
