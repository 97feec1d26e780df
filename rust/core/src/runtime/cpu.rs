//! The choice among the instances of a kernel: the one place that asks the CPU what it can do.
//!
//! A [`Level`] is an instruction set. The CPU is probed once; [`level`] is the highest level that it has, or the one that
//! the environment variable `RSPRUNE_CPU` names. A kernel is compiled for the levels that it profits from, and `dispatch!`
//! calls the instance of the highest of them that the level includes. All instances give the same bits, so that a level
//! shows in the time alone. [`kernels`] tells which instances have run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::{Error, Result};

/// The instruction sets that kernels ask for, by name, and whether this CPU has each.
pub fn features() -> &'static [(&'static str, bool)] {
    static FEATURES: OnceLock<Vec<(&'static str, bool)>> = OnceLock::new();
    FEATURES.get_or_init(probe)
}

/// Whether this CPU has the instruction set `name`.
fn has(name: &str) -> bool {
    features().iter().any(|&(n, present)| n == name && present)
}

/// An instruction set that kernels are compiled for.
///
/// Only this crate makes values of it, and only of levels that this CPU has: whoever holds a level may run its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The instructions that every CPU of the target has.
    #[non_exhaustive]
    Scalar,
    /// The instructions that every CPU of 64-bit Arm has. There are no intrinsics for it: the compiler vectorizes the portable code.
    #[non_exhaustive]
    Neon,
    /// AVX2, BMI1, BMI2, F16C and FMA: x86-64-v3.
    #[non_exhaustive]
    Avx2,
    /// [`Level::Avx2`] and AVX-VNNI.
    #[non_exhaustive]
    AvxVnni,
    /// [`Level::Avx2`] and AVX-512 F, BW and VL.
    #[non_exhaustive]
    Avx512,
    /// [`Level::Avx512`] and its VNNI: Cascade Lake.
    #[non_exhaustive]
    Avx512Vnni,
    /// [`Level::Avx512Vnni`], VBMI, VPOPCNTDQ and GFNI: Ice Lake and Zen 4.
    #[non_exhaustive]
    Avx512Icl,
}

impl Level {
    /// Every level, lowest first.
    const ALL: [Level; 7] =
        [Level::Scalar, Level::Neon, Level::Avx2, Level::AvxVnni, Level::Avx512, Level::Avx512Vnni, Level::Avx512Icl];

    /// The levels that this CPU has, lowest first.
    pub fn present() -> impl DoubleEndedIterator<Item = Level> + Clone {
        Level::ALL.into_iter().filter(|level| level.is_present())
    }

    /// Its name in `RSPRUNE_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
            Level::Avx512Icl => "avx512icl",
        }
    }

    /// Whether a CPU of this level can run what is compiled for `other`.
    #[inline]
    pub const fn includes(self, other: Level) -> bool {
        match other {
            Level::Scalar => true,
            Level::Neon | Level::AvxVnni => self as u8 == other as u8,
            Level::Avx2 | Level::Avx512 | Level::Avx512Vnni | Level::Avx512Icl => self as u8 >= other as u8,
        }
    }

    fn is_present(self) -> bool {
        match self {
            Level::Scalar => true,
            Level::Neon => has("neon"),
            Level::Avx2 => ["avx2", "bmi1", "bmi2", "f16c", "fma"].into_iter().all(has),
            Level::AvxVnni => Level::Avx2.is_present() && has("avxvnni"),
            Level::Avx512 => Level::Avx2.is_present() && ["avx512f", "avx512bw", "avx512vl"].into_iter().all(has),
            Level::Avx512Vnni => Level::Avx512.is_present() && has("avx512vnni"),
            Level::Avx512Icl => {
                Level::Avx512Vnni.is_present() && ["avx512vbmi", "avx512vpopcntdq", "gfni"].into_iter().all(has)
            }
        }
    }

    /// Whether one instruction adds up the products of four pairs of eight-bit numbers.
    pub const fn has_vnni(self) -> bool {
        self.includes(Level::AvxVnni) || self.includes(Level::Avx512Vnni)
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

/// [`level`], for code that has no way to report an error: the lowest level if the variable is wrong, of which the
/// entry points of the crate and of its bindings tell the caller.
pub(crate) fn active() -> Level {
    static ACTIVE: OnceLock<Level> = OnceLock::new();
    *ACTIVE.get_or_init(|| level().unwrap_or(Level::Scalar))
}

fn choose(forced: Option<String>) -> Result<Level, String> {
    let Some(name) = forced.filter(|name| !name.is_empty()) else {
        return Ok(Level::present().next_back().unwrap_or(Level::Scalar));
    };
    match Level::ALL.into_iter().find(|level| level.name() == name) {
        Some(level) if level.is_present() => Ok(level),
        Some(_) => Err(format!("RSPRUNE_CPU is {name:?}, which this CPU lacks; unset it")),
        None => Err(format!("RSPRUNE_CPU is {name:?}; expected one of {}", Level::ALL.map(Level::name).join(", "))),
    }
}

/// The instances that have run last, by kernel.
static RAN: Mutex<BTreeMap<&'static str, Level>> = Mutex::new(BTreeMap::new());

/// Every kernel that has run in this process, by its path in this crate, and the level of the instance that ran last.
pub fn kernels() -> Vec<(&'static str, Level)> {
    let ran = RAN.lock().unwrap_or_else(PoisonError::into_inner);
    ran.iter().map(|(&kernel, &level)| (kernel, level)).collect()
}

/// A record, kept by `dispatch!`, of the instance of one kernel that ran last.
pub(crate) struct Record {
    path: &'static str,
    /// The level that ran last, or [`Record::NONE`].
    level: AtomicU8,
}

impl Record {
    const NONE: u8 = u8::MAX;

    /// The record of the kernel at `path`.
    pub(crate) const fn new(path: &'static str) -> Self {
        Record { path, level: AtomicU8::new(Self::NONE) }
    }

    /// Notes that the instance of `level` runs. That it did so before costs a load: threads must not fight for the line.
    #[inline(always)]
    pub(crate) fn set(&self, level: Level) {
        if self.level.load(Ordering::Relaxed) != level as u8 {
            self.change(level);
        }
    }

    #[cold]
    fn change(&self, level: Level) {
        let path = self.path.split_once("::").map_or(self.path, |(_crate, path)| path);
        RAN.lock().unwrap_or_else(PoisonError::into_inner).insert(path, level);
        self.level.store(level as u8, Ordering::Relaxed);
    }
}

/// Defines a function that calls the instance of a kernel for its first argument, a [`Level`].
///
/// The arms name the levels that the kernel is compiled for, highest first, `Scalar` last, and what is called there:
///
/// ```ignore
/// dispatch! {
///     /// The sum of the products.
///     pub(crate) fn dot(level: Level, x: &[f32], y: &[f32]) -> f32 {
///         Avx512 => avx512::dot(x, y),
///         Avx2 | Scalar => portable_dot(x, y),
///     }
/// }
/// ```
///
/// `Avx512 | Avx2 | Scalar as I => generic_dot::<I>(x, y)` calls an unsafe function that is generic over an instruction
/// set ([`crate::simd::Isa`]) as compiled for that of the level: its promise, that the CPU has the instructions of `I`, is
/// kept here.
///
/// Each arm becomes the body of a function that enables the instructions of its level, into which what it calls must be
/// inlined, unless it enables them itself.
macro_rules! dispatch {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:path),+>)?
        ($level:ident: Level $(, $argument:ident: $type:ty)* $(,)?) $(-> $output:ty)? { $($arms:tt)+ }
    ) => {
        $(#[$meta])*
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "kernels take what they need")]
        $vis fn $name $(<$($generic: $bound),+>)?
        ($level: $crate::runtime::cpu::Level $(, $argument: $type)*) $(-> $output)? {
            static RECORD: $crate::runtime::cpu::Record =
                $crate::runtime::cpu::Record::new(concat!(module_path!(), "::", stringify!($name)));
            dispatch!(
                @arms { $level [$($argument: $type),*] [$($($generic: $bound),+)?] [$($output)?] } $($arms)+
            );
        }
    };

    (@arms $kernel:tt $level:ident => $body:expr, $($rest:tt)*) => {
        dispatch!(@instance $level $kernel $body);
        dispatch!(@arms $kernel $($rest)*);
    };
    (@arms $kernel:tt $level:ident $(| $more:ident)+ => $body:expr, $($rest:tt)*) => {
        dispatch!(@instance $level $kernel $body);
        dispatch!(@arms $kernel $($more)|+ => $body, $($rest)*);
    };
    (@arms $kernel:tt $level:ident as $isa:ident => $body:expr, $($rest:tt)*) => {
        dispatch!(@instance $level $kernel {
            type $isa = $crate::simd::$level;
            // SAFETY: the instance runs where the CPU has the instructions of its level, and `$isa` uses no others.
            #[allow(unused_unsafe, reason = "not all that is compiled for a type executes its instructions")]
            unsafe { $body }
        });
        dispatch!(@arms $kernel $($rest)*);
    };
    (@arms $kernel:tt $level:ident $(| $more:ident)+ as $isa:ident => $body:expr, $($rest:tt)*) => {
        dispatch!(@arms $kernel $level as $isa => $body, $($more)|+ as $isa => $body, $($rest)*);
    };
    (@arms $kernel:tt) => {};

    (@instance Scalar { $level:ident $arguments:tt $generics:tt $output:tt } $body:expr) => {
        RECORD.set($crate::runtime::cpu::Level::Scalar);
        return $body;
    };
    (@instance Avx2 $kernel:tt $body:expr) => {
        dispatch!(@x86 Avx2 "avx2,bmi1,bmi2,f16c,fma" $kernel $body);
    };
    (@instance AvxVnni $kernel:tt $body:expr) => {
        dispatch!(@x86 AvxVnni "avx2,bmi1,bmi2,f16c,fma,avxvnni" $kernel $body);
    };
    (@instance Avx512 $kernel:tt $body:expr) => {
        dispatch!(@x86 Avx512 "avx2,bmi1,bmi2,f16c,fma,avx512f,avx512bw,avx512vl" $kernel $body);
    };
    (@instance Avx512Vnni $kernel:tt $body:expr) => {
        dispatch!(@x86 Avx512Vnni "avx2,bmi1,bmi2,f16c,fma,avx512f,avx512bw,avx512vl,avx512vnni" $kernel $body);
    };
    (@instance Avx512Icl $kernel:tt $body:expr) => {
        dispatch!(
            @x86 Avx512Icl
            "avx2,bmi1,bmi2,f16c,fma,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx512vpopcntdq,gfni"
            $kernel $body
        );
    };

    (
        @x86 $isa:ident $features:tt
        { $level:ident [$($argument:ident: $type:ty),*] [$($generic:ident: $bound:path),*] [$($output:ty)?] }
        $body:expr
    ) => {
        #[cfg(target_arch = "x86_64")]
        if $level.includes($crate::runtime::cpu::Level::$isa) {
            #[target_feature(enable = $features)]
            #[allow(clippy::too_many_arguments, reason = "kernels take what they need")]
            fn instance<$($generic: $bound),*>($($argument: $type),*) $(-> $output)? {
                $body
            }
            RECORD.set($crate::runtime::cpu::Level::$isa);
            // SAFETY: `instance` wants the instructions of its level, which `level` includes; and a level is made only
            // where the CPU was found to have it.
            return unsafe { instance::<$($generic),*>($($argument),*) };
        }
    };
}
pub(crate) use dispatch;

/// Asks for the cache line of `memory`'s first byte; changes nothing but the time.
#[inline(always)]
pub(crate) fn prefetch<T>(memory: &[T]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of every x86-64, and a prefetch reads nothing, so that any address will do.
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
        "bmi1",
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
    fn a_level_includes_what_its_features_include() {
        // As the levels of the CPUs that have them: none of Arm's is one of Intel's.
        for level in Level::ALL {
            assert!(level.includes(level) && level.includes(Level::Scalar));
            assert_eq!(level.includes(Level::Avx2), level >= Level::Avx2);
            assert_eq!(level.includes(Level::AvxVnni), level == Level::AvxVnni);
        }
        assert!(!Level::Scalar.includes(Level::Neon) && !Level::Avx2.includes(Level::Neon));
        assert!(Level::Avx512Icl.has_vnni() && Level::AvxVnni.has_vnni() && !Level::Avx512.has_vnni());
    }

    dispatch! {
        /// A kernel that says which instance it is.
        fn named<T: ToString>(level: Level, value: T) -> String {
            Avx512 => format!("avx512 {}", value.to_string()),
            Avx2 | Scalar => value.to_string(),
        }
    }

    #[test]
    fn what_runs_is_the_highest_instance_of_the_level() {
        for level in Level::present() {
            let ran = if level.includes(Level::Avx512) {
                Level::Avx512
            } else if level.includes(Level::Avx2) {
                Level::Avx2
            } else {
                Level::Scalar
            };
            assert_eq!(named(level, 7), if ran == Level::Avx512 { "avx512 7" } else { "7" });
            assert!(kernels().contains(&("runtime::cpu::tests::named", ran)));
        }
    }

    #[test]
    fn a_level_is_forced_by_name() {
        assert_eq!(choose(Some("scalar".into())), Ok(Level::Scalar));
        assert_eq!(choose(Some(String::new())), choose(None));
        assert!(choose(None).unwrap().is_present());
        assert!(choose(Some("abacus".into())).unwrap_err().contains("abacus"));
    }
}
