//! What this CPU can do, probed once.

use std::sync::OnceLock;

/// The instruction sets that kernels ask for, by name, and whether this CPU has each.
pub fn features() -> &'static [(&'static str, bool)] {
    static FEATURES: OnceLock<Vec<(&'static str, bool)>> = OnceLock::new();
    FEATURES.get_or_init(probe)
}

/// Whether this CPU has the instruction set `name`.
pub fn has(name: &str) -> bool {
    features().iter().any(|&(n, present)| n == name && present)
}

#[cfg(target_arch = "x86_64")]
fn probe() -> Vec<(&'static str, bool)> {
    macro_rules! probe {
        ($($name:tt),*) => { vec![$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    probe!("avx2", "bmi2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16", "avxvnni")
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
}
