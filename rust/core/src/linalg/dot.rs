//! The dot product that defines every label and similarity.
//!
//! `dot(x, y)` adds the products `x[i] * y[i]` in eight lanes: lane `l` adds those with `i % 8 == l`, in the order of
//! `i`, starting from +0.0; the last, incomplete step is padded with zeros. The lanes are then reduced as a tree,
//! `((0+4) + (2+6)) + ((1+5) + (3+7))`. Every product and every sum is rounded to float64, none is fused.
//!
//! Eight lanes are one AVX-512 register, two of AVX2, four of NEON and SSE2: all of them compute exactly this. The
//! product of two float32 is exact in float64 (24 + 24 bits of 53, exponents within range), so there a fused
//! multiply-add, which rounds once, gives the same bits as the two instructions.

/// Independent partial sums of a dot product.
pub const LANES: usize = 8;

/// One step of a dot product: a value a lane.
pub type Lanes = [f64; LANES];

/// The dot product of two rows of one length.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "rows of one length");
    let (x, x_tail) = x.as_chunks::<LANES>();
    let (y, y_tail) = y.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in x.iter().zip(y) {
        step(&mut sums, x, y);
    }
    if !x_tail.is_empty() {
        step(&mut sums, &padded(x_tail), &padded(y_tail));
    }
    reduce_lanes(sums)
}

#[inline(always)]
fn step(sums: &mut Lanes, x: &Lanes, y: &Lanes) {
    for l in 0..LANES {
        sums[l] += x[l] * y[l];
    }
}

fn padded(tail: &[f64]) -> Lanes {
    let mut lanes = [0.0; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}

/// The sum of the lanes, in its fixed order.
#[inline(always)]
pub fn reduce_lanes(s: Lanes) -> f64 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}
