//! Which vectors may be as similar to a row as the row asks: the bounds of [`super`] on cosines, with a floor for each
//! row instead of the nearest centroid alone, and vectors of any length.
//!
//! A vector `y` of the base is rounded as the unit vector `y / |y|` less a centre `m`, so that with `x = s p + e` as in
//! [`super`], `cos(x, y) = (<x, c> + <x, m>) / |x|`. A floor `f` of cosines is `(f |x| - <x, m>) / s` in units of the row's
//! scale, where bounds are compared. What rounding to float32 may add to a cosine is taken off the floor, so that a
//! vector is excluded only if its similarity *as rounded* is below.

use super::code::Digits as RowDigits;
use super::packed::Centroid;
use super::*;

/// Vectors of a panel: floors may rise from one panel to the next.
pub(crate) const PANEL_VECTORS: usize = PANEL * LANES;

/// Taken off floors, as a share of the norms that they come from. Rounding a cosine to float32 and a floor to float32
/// take at most 2^-24 each.
const SLACK: f64 = 1.0 / (1 << 22) as f64;

/// Vectors of any length, ready to be excluded.
#[derive(Debug)]
pub(crate) struct Screen {
    level: Level,
    dim: usize,
    /// `m`: the mean of the unit vectors, or near it.
    centre: Vec<f32>,
    digits: Digits,
}

#[derive(Debug)]
enum Digits {
    Eight(Packed<I8>),
    Sixteen(Packed<I16>),
}

/// What is known of a row: its norm `|x|` and its dot product with the centre.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measure {
    pub(crate) norm: f64,
    pub(crate) centre: f64,
}

/// What a row looks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// Vectors of a lower similarity are of no interest.
    pub(crate) floor: f32,
    /// Only vectors of lower numbers are.
    pub(crate) limit: usize,
    /// And of these no more than the so many best of a panel, and what may be as good; 0 for all.
    pub(crate) best: usize,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(crate) struct Screening {
    rows8: RowDigits<I8>,
    rows16: RowDigits<I16>,
    block: Block,
    /// `|x|` and `<x, m>` of each row in units of its scale.
    scaled: Vec<Measure>,
    lowers: Vec<f32>,
    groups: usize,
}

impl Screening {
    /// The vectors of the panel, by their number in it, that `row` cannot exclude.
    pub(crate) fn left(&self, row: usize) -> impl Iterator<Item = u32> + use<'_> {
        let masks = &self.block.masks[row * self.groups..(row + 1) * self.groups];
        masks.iter().enumerate().flat_map(|(group, &mask)| labels(group, mask))
    }
}

/// Part of the work, as it passes through the compilations for each instruction set.
#[derive(Clone, Copy)]
enum Task<'t> {
    Encode { rows: &'t [f32], measures: &'t [Measure] },
    Panel { first: usize, groups: usize, asks: &'t [Ask] },
}

impl Screen {
    /// For `level`, or `None` if it has no instructions that make this faster than float64. Vectors whose norm is no
    /// positive number are never found.
    pub(crate) fn new(level: Level, vectors: &[f32], norms: &[f64], dim: usize) -> Option<Self> {
        if level == Level::Scalar || dim > MAX_DIM {
            return None;
        }
        let is_vector = |norm: f64| norm > 0.0 && norm.is_finite();
        let mut sum = vec![0f64; dim];
        for (vector, &norm) in vectors.chunks_exact(dim).zip(norms).filter(|(_, norm)| is_vector(**norm)) {
            sum.iter_mut().zip(vector).for_each(|(s, &v)| *s += f64::from(v) / norm);
        }
        let centre: Vec<f32> = sum.iter().map(|s| (s / norms.len() as f64) as f32).collect();
        let digits = if level.has_vnni() && dim <= I8_MAX_DIM {
            Digits::Eight(pack(vectors, norms, &centre))
        } else {
            Digits::Sixteen(pack(vectors, norms, &centre))
        };
        Some(Screen { level, dim, centre, digits })
    }

    /// See [`Measure`].
    pub(crate) fn centre(&self) -> &[f32] {
        &self.centre
    }

    /// Takes in the rows that the next panels are searched for. Those whose norm is no positive number find nothing.
    pub(crate) fn encode(&self, rows: &[f32], measures: &[Measure], screening: &mut Screening) {
        self.run(Task::Encode { rows, measures }, screening);
    }

    /// Searches the vectors from `first` on, at most [`PANEL_VECTORS`] and no more than any of `asks`, one a row, allows.
    pub(crate) fn panel(&self, first: usize, asks: &[Ask], screening: &mut Screening) {
        let limit = asks.iter().map(|ask| ask.limit).max().unwrap_or_default();
        let all = match &self.digits {
            Digits::Eight(packed) => packed.groups(),
            Digits::Sixteen(packed) => packed.groups(),
        };
        let groups = PANEL.min(all - first / LANES).min(limit.saturating_sub(first).div_ceil(LANES));
        screening.groups = groups;
        self.run(Task::Panel { first: first / LANES, groups, asks }, screening);
    }

    fn run(&self, task: Task<'_>, screening: &mut Screening) {
        match &self.digits {
            Digits::Eight(packed) => match self.level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level was found present on this CPU.
                Level::Avx512Vnni | Level::Avx512Icl => unsafe {
                    x86::eight_avx512_vnni(packed, self.dim, task, screening)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level was found present on this CPU.
                Level::AvxVnni => unsafe { x86::eight_avx_vnni(packed, self.dim, task, screening) },
                _ => eight::<[i32; LANES]>(packed, self.dim, task, screening),
            },
            Digits::Sixteen(packed) => match self.level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level was found present on this CPU.
                Level::Avx512Vnni | Level::Avx512Icl => unsafe {
                    x86::sixteen_avx512_vnni(packed, self.dim, task, screening)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level was found present on this CPU.
                Level::Avx512 => unsafe { x86::sixteen_avx512(packed, self.dim, task, screening) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level was found present on this CPU.
                Level::AvxVnni => unsafe { x86::sixteen_avx_vnni(packed, self.dim, task, screening) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level was found present on this CPU.
                Level::Avx2 => unsafe { x86::sixteen_avx2(packed, self.dim, task, screening) },
                _ => sixteen::<[i32; LANES]>(packed, self.dim, task, screening),
            },
        }
    }
}

fn pack<C: Code>(vectors: &[f32], norms: &[f64], centre: &[f32]) -> Packed<C> {
    let mut centred = Vec::with_capacity(centre.len());
    let vectors = vectors.chunks_exact(centre.len()).zip(norms).map(|(vector, &norm)| {
        centred.clear();
        centred.extend(vector.iter().zip(centre).map(|(&v, &m)| f64::from(v) / norm - f64::from(m)));
        (norm > 0.0 && norm.is_finite()).then(|| Centroid::new::<C>(&centred, 1.0))
    });
    Packed::of(vectors, norms.len(), centre.len())
}

#[inline(always)]
fn eight<S: Dot<I8>>(packed: &Packed<I8>, dim: usize, task: Task<'_>, screening: &mut Screening) {
    let Screening { rows8, block, scaled, lowers, .. } = screening;
    step::<S, I8>(packed, dim, task, rows8, block, scaled, lowers);
}

#[inline(always)]
fn sixteen<S: Dot<I16>>(packed: &Packed<I16>, dim: usize, task: Task<'_>, screening: &mut Screening) {
    let Screening { rows16, block, scaled, lowers, .. } = screening;
    step::<S, I16>(packed, dim, task, rows16, block, scaled, lowers);
}

#[inline(always)]
fn step<S: Dot<C>, C: Code>(
    packed: &Packed<C>,
    dim: usize,
    task: Task<'_>,
    digits: &mut RowDigits<C>,
    block: &mut Block,
    scaled: &mut Vec<Measure>,
    lowers: &mut Vec<f32>,
) {
    match task {
        Task::Encode { rows, measures } => {
            digits.of_rows::<S::Floats>(rows, dim);
            scaled.clear();
            scaled.extend(measures.iter().zip(&digits.sizes).map(|(measure, size)| {
                let scale = size.map_or(1.0, |size| f64::from(size.scale::<C>(dim)));
                Measure { norm: measure.norm / scale, centre: measure.centre / scale }
            }));
        }
        Task::Panel { first, groups, asks } => {
            let n = asks.len();
            block.masks.clear();
            block.masks.resize(n * groups, 0);
            if groups > 0 {
                block.scores.resize(n * groups, Group([0; LANES]));
                let mut ahead = Ahead::new(&[], n, packed);
                multiply::<S, C>(&digits.words, packed, first, groups, &mut block.scores[..n * groups], &mut ahead);
                let bounds = &packed.bounds[first..first + groups];
                let part = Part { bounds, first: first * LANES, len: packed.len };
                exclude::<S, C>(part, asks, digits, block, scaled, lowers);
            }
        }
    }
}

/// A panel: the vectors from `first` on, of `len` in all.
struct Part<'p> {
    bounds: &'p [Bounds],
    first: usize,
    len: usize,
}

/// Marks the vectors of a panel that may be what each row asks for.
#[inline(always)]
fn exclude<S: Ints, C: Code>(
    part: Part<'_>,
    asks: &[Ask],
    digits: &RowDigits<C>,
    block: &mut Block,
    scaled: &[Measure],
    lowers: &mut Vec<f32>,
) {
    let Part { bounds, first, len } = part;
    let Block { scores, uppers, masks, .. } = block;
    let RowDigits { sizes, codes, .. } = digits;
    uppers.resize(bounds.len(), Group([0.0; LANES]));
    for (row, (ask, masks)) in asks.iter().zip(masks.chunks_exact_mut(bounds.len())).enumerate() {
        // Vectors of the panel that may be found.
        let count = ask.limit.min(len).saturating_sub(first).min(bounds.len() * LANES);
        let Measure { norm, centre } = scaled[row];
        if count == 0 || norm.is_nan() || norm <= 0.0 {
            continue;
        }
        let groups = count.div_ceil(LANES);
        let last = u16::MAX >> (groups * LANES - count);
        if sizes[row].is_none() {
            masks[..groups].fill(u16::MAX);
            masks[groups - 1] = last;
            continue;
        }
        let code = codes[row];
        let (row_error, row_norm) = (S::Floats::splat(code.error), S::Floats::splat(code.norm));
        let mut lowest = S::Floats::splat(f32::NEG_INFINITY);
        lowers.clear();
        let scores = &scores[row * bounds.len()..][..groups];
        for (group, ((score, bounds), upper)) in scores.iter().zip(bounds).zip(uppers.iter_mut()).enumerate() {
            let [lower, highest] = ends::<S>(score, bounds, row_error, row_norm);
            upper.0 = highest.to_array();
            if group + 1 < groups || last == u16::MAX {
                lowest = lower.max(lowest);
            }
            if ask.best > 1 || group + 1 == groups {
                lowers.extend_from_slice(&lower.to_array());
            }
        }
        // Some of the last group's may not be found.
        lowers.truncate(lowers.len() - (groups * LANES - count));
        let best = match ask.best {
            0 => f32::NEG_INFINITY,
            1 => lowers.iter().fold(lowest.largest(), |a, &b| a.max(b)),
            best if best <= lowers.len() => *lowers.select_nth_unstable_by(best - 1, |a, b| b.total_cmp(a)).1,
            _ => f32::NEG_INFINITY,
        };
        let asked = f64::from(ask.floor) * norm - centre - SLACK * (norm + centre.abs());
        let floor = S::Floats::splat((best - 2.0 * SLACK as f32 * code.norm).max(asked as f32));
        for (mask, upper) in masks.iter_mut().zip(&uppers[..groups]) {
            *mask = S::Floats::load(&upper.0).at_least(floor);
        }
        masks[groups - 1] &= last;
    }
}

/// [`eight`] and [`sixteen`] as compiled for each instruction set.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::simd::x86::{Ymm, Zmm};
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    pub(super) fn eight_avx512_vnni(packed: &Packed<I8>, dim: usize, task: Task<'_>, screening: &mut Screening) {
        eight::<Zmm<true>>(packed, dim, task, screening);
    }

    #[target_feature(enable = "avxvnni,avx2,fma")]
    pub(super) fn eight_avx_vnni(packed: &Packed<I8>, dim: usize, task: Task<'_>, screening: &mut Screening) {
        eight::<Ymm<true>>(packed, dim, task, screening);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    pub(super) fn sixteen_avx512_vnni(packed: &Packed<I16>, dim: usize, task: Task<'_>, screening: &mut Screening) {
        sixteen::<Zmm<true>>(packed, dim, task, screening);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    pub(super) fn sixteen_avx512(packed: &Packed<I16>, dim: usize, task: Task<'_>, screening: &mut Screening) {
        sixteen::<Zmm<false>>(packed, dim, task, screening);
    }

    #[target_feature(enable = "avxvnni,avx2,fma")]
    pub(super) fn sixteen_avx_vnni(packed: &Packed<I16>, dim: usize, task: Task<'_>, screening: &mut Screening) {
        sixteen::<Ymm<true>>(packed, dim, task, screening);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn sixteen_avx2(packed: &Packed<I16>, dim: usize, task: Task<'_>, screening: &mut Screening) {
        sixteen::<Ymm<false>>(packed, dim, task, screening);
    }
}
