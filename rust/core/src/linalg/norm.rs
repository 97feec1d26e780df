//! The norm of a row, and the rescaling of rows whose norm float64 cannot hold.

use super::dot::dot;

/// Squared norms in this range are computed without overflow, and with no more underflow than rounding hides. Rows of
/// 32 bits or fewer never leave it: their squares lie between 2^-298 and 2^256.
const SAFE: std::ops::Range<f64> = {
    // 2^-900 and 2^900: far inside the range of float64 with room for any number of summands.
    let edge = f64::from_bits((1023 + 900) << 52);
    1.0 / edge..edge
};

/// The norm of a row: `value * 2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    /// The norm of the row as rescaled.
    pub(crate) value: f64,
    /// The power of two that the row was divided by; 0 for all but extreme float64 rows.
    exponent: i32,
}

impl Norm {
    /// The norm of `row`, which is rescaled in place by a power of two if its squared norm over- or underflows.
    ///
    /// # Errors
    /// Why the row has no direction.
    pub(crate) fn of(row: &mut [f64]) -> Result<Self, &'static str> {
        let squared = dot(row, row);
        if SAFE.contains(&squared) {
            return Ok(Norm { value: squared.sqrt(), exponent: 0 });
        }
        if row.iter().any(|v| !v.is_finite()) {
            return Err("holds NaN or infinity");
        }
        let largest = row.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        if largest == 0.0 {
            return Err("is all zero");
        }
        let exponent = libm::ilogb(largest);
        for v in row.iter_mut() {
            *v = libm::scalbn(*v, -exponent);
        }
        Ok(Norm { value: dot(row, row).sqrt(), exponent })
    }

    /// The norm of a row of finite float32 numbers that are not all zero, from its dot product with itself.
    pub(crate) fn from_square(square: f64) -> Self {
        Norm { value: square.sqrt(), exponent: 0 }
    }

    /// The dot product of the row as stored, from that of the row as rescaled.
    pub(crate) fn unscale(self, dot: f64) -> f64 {
        if self.exponent == 0 { dot } else { libm::scalbn(dot, self.exponent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_rows_keep_their_direction() {
        for scale in [f64::MAX / 4.0, 1.0, 1e-200, f64::MIN_POSITIVE, 5e-324] {
            let mut row = [3.0 * scale, -4.0 * scale];
            let norm = Norm::of(&mut row).unwrap();
            assert!((row[0] / norm.value - 0.6).abs() < 1e-15, "{scale}");
            assert!((row[1] / norm.value + 0.8).abs() < 1e-15, "{scale}");
            assert_eq!(norm.unscale(row[0]), 3.0 * scale);
        }
    }

    #[test]
    fn rows_without_direction_say_why() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Norm::of(&mut [1.0, bad]), Err("holds NaN or infinity"));
        }
        assert_eq!(Norm::of(&mut [0.0, -0.0]), Err("is all zero"));
    }
}
