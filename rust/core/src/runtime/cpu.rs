//! What this CPU can do, probed once.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The instruction sets that kernels ask for, by name, and whether this CPU has each.
pub fn features() -> &'static [(&'static str, bool)] {
    static FEATURES: OnceLock<Vec<(&'static str, bool)>> = OnceLock::new();
    FEATURES.get_or_init(probe)
}

/// Whether this CPU has the instruction set `name`.
pub fn has(name: &str) -> bool {
    features().iter().any(|&(n, present)| n == name && present)
}

/// Which compilation of a kernel runs. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every CPU of the target has.
    Scalar,
    /// What every CPU of 64-bit Arm has.
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// These and AVX-VNNI.
    AvxVnni,
    /// AVX-512 F, BW and VL.
    Avx512,
    /// These and AVX-512 VNNI.
    Avx512Vnni,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Level; 6] =
        [Level::Scalar, Level::Neon, Level::Avx2, Level::AvxVnni, Level::Avx512, Level::Avx512Vnni];

    /// Its name in `RSPRUNE_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
        }
    }

    /// Whether this CPU can run it.
    pub fn is_present(self) -> bool {
        match self {
            Level::Scalar => true,
            Level::Neon => has("neon"),
            Level::Avx2 => has("avx2") && has("fma"),
            Level::AvxVnni => Level::Avx2.is_present() && has("avxvnni"),
            Level::Avx512 => Level::Avx2.is_present() && ["avx512f", "avx512bw", "avx512vl"].into_iter().all(has),
            Level::Avx512Vnni => Level::Avx512.is_present() && has("avx512vnni"),
        }
    }

    /// Whether products of four eight-bit numbers are added in one instruction.
    pub fn has_vnni(self) -> bool {
        matches!(self, Level::AvxVnni | Level::Avx512Vnni)
    }
}

/// The highest level of this CPU, or the one that the environment variable `RSPRUNE_CPU` names; decided once.
///
/// # Errors
/// [`Error::Argument`] when the variable names no level, or one that this CPU lacks.
pub fn level() -> Result<Level> {
    static LEVEL: OnceLock<Result<Level, String>> = OnceLock::new();
    let choice =
        LEVEL.get_or_init(|| choose(std::env::var_os("RSPRUNE_CPU").map(|v| v.to_string_lossy().into_owned())));
    choice.clone().map_err(Error::Argument)
}

fn choose(forced: Option<String>) -> Result<Level, String> {
    let Some(name) = forced.filter(|name| !name.is_empty()) else {
        return Ok(Level::ALL.into_iter().rfind(|level| level.is_present()).unwrap_or(Level::Scalar));
    };
    match Level::ALL.into_iter().find(|level| level.name() == name) {
        Some(level) if level.is_present() => Ok(level),
        Some(_) => Err(format!("RSPRUNE_CPU is {name:?}, which this CPU lacks; unset it")),
        None => Err(format!("RSPRUNE_CPU is {name:?}; expected one of {}", Level::ALL.map(Level::name).join(", "))),
    }
}

/// Asks for the cache line of `memory`'s first byte; changes nothing but the time.
#[inline(always)]
pub(crate) fn prefetch<T>(memory: &[T]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of the target's floor, and no access.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(memory.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory;
}

#[cfg(target_arch = "x86_64")]
fn probe() -> Vec<(&'static str, bool)> {
    macro_rules! probe {
        ($($name:tt),*) => { vec![$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    probe!(
        "avx2",
        "bmi2",
        "fma",
        "f16c",
        "gfni",
        "avxvnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512vbmi",
        "avx512vpopcntdq",
        "avx512vnni",
        "avx512bf16"
    )
}

#[cfg(target_arch = "aarch64")]
fn probe() -> Vec<(&'static str, bool)> {
    vec![("neon", std::arch::is_aarch64_feature_detected!("neon"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn probe() -> Vec<(&'static str, bool)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_are_absent() {
        assert!(!has("abacus"));
        assert!(features().iter().all(|&(name, present)| has(name) == present));
    }

    #[test]
    fn a_level_is_forced_by_name() {
        assert_eq!(choose(Some("scalar".into())), Ok(Level::Scalar));
        assert_eq!(choose(Some(String::new())), choose(None));
        assert!(choose(None).unwrap().is_present());
        assert!(choose(Some("abacus".into())).unwrap_err().contains("abacus"));
    }
}
