//! Which kernels this CPU runs.

use crate::runtime::cpu;

/// The instruction sets that the kernels of this decoder may use. All give the same samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simd {
    avx2: bool,
}

impl Simd {
    /// None: portable code.
    #[cfg(test)]
    pub const PORTABLE: Simd = Simd { avx2: false };

    /// What this CPU has.
    pub fn detect() -> Self {
        Simd { avx2: cfg!(target_arch = "x86_64") && cpu::has("avx2") && cpu::has("bmi2") }
    }

    /// Whether this CPU has AVX2 and BMI2: never true on one that has not.
    pub fn avx2(self) -> bool {
        self.avx2
    }
}
