//! Vectors of sixteen 32-bit or eight 64-bit numbers, in the registers of each instruction set.
//!
//! Algorithms are written once, over the traits of [`vector`], and compiled for each [`Isa`] by `dispatch!`
//! ([`crate::runtime::cpu`]). [`scalar`] is portable: the oracle of the others, and what the compiler makes NEON of.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
mod vector;

pub(crate) use vector::{DotAccumulate, F32x16, F64x8, I32x16, LANES, Lane16, Word};

/// An instruction set, as the vectors that it offers.
///
/// Its types may be used only where its instructions are enabled and present: see [`vector`].
pub(crate) trait Isa {
    /// Sixteen whole numbers.
    type I32: I32x16<F32 = Self::F32> + DotAccumulate<[i16; 2]>;
    /// Sixteen float32 numbers.
    type F32: F32x16;
    /// Eight float64 numbers.
    type F64: F64x8;
}

macro_rules! isa {
    ($(#[$meta:meta])* $name:ident: $i32:ty, $f32:ty, $f64:ty) => {
        $(#[$meta])*
        pub(crate) struct $name;

        impl Isa for $name {
            type I32 = $i32;
            type F32 = $f32;
            type F64 = $f64;
        }
    };
}

isa!(
    /// Portable code.
    Scalar: [i32; 16], [f32; 16], [f64; 8]
);
#[cfg(target_arch = "x86_64")]
isa!(
    /// AVX2 and FMA.
    Avx2: avx2::Ints<false>, avx2::Floats, avx2::Doubles
);
#[cfg(target_arch = "x86_64")]
isa!(
    /// [`Avx2`] and AVX-VNNI.
    AvxVnni: avx2::Ints<true>, avx2::Floats, avx2::Doubles
);
#[cfg(target_arch = "x86_64")]
isa!(
    /// AVX-512 F, BW and VL.
    Avx512: avx512::Ints<false>, avx512::Floats, avx512::Doubles
);
#[cfg(target_arch = "x86_64")]
isa!(
    /// [`Avx512`] and its VNNI.
    Avx512Vnni: avx512::Ints<true>, avx512::Floats, avx512::Doubles
);
