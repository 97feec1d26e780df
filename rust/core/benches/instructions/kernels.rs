//! What is counted: every kernel on inputs so small that stepping through them takes seconds (a step takes up to 30 us).

use std::error::Error;
use std::hint::black_box;

use half::f16;
use rsprune_core::Par;
use rsprune_core::assign::{self, Assigner, Centroids, OnInvalid};
use rsprune_core::entropy::{entropies_from_arrays, entropies_from_inputs};
use rsprune_core::image::gray::Gray;
use rsprune_core::image::{GrayOptions, ImageRef, Input, Limits, SamplesRef};
use rsprune_core::kmeans;
use rsprune_core::rows::{self, Element, Rows};
use rsprune_core::runtime::cpu::Level;
use rsprune_core::runtime::rng::{hash64, uniform};
use rsprune_core::select;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A kernel by name.
pub struct Kernel {
    /// As it stands in the table.
    pub name: &'static str,
    /// What the input has many of.
    pub unit: &'static str,
    /// Whether `RSPRUNE_CPU` changes what runs.
    pub by_level: bool,
    /// Its input; scalar code gets less.
    pub make: fn(Level) -> Result<Work>,
}

/// A kernel with its input.
pub struct Work {
    /// The size of the input.
    pub units: usize,
    /// Runs it once.
    pub run: Box<dyn FnMut() -> Result<()>>,
}

/// What stepping counts by itself.
pub const EMPTY: Kernel =
    Kernel { name: "nothing", unit: "run", by_level: true, make: |_| Ok(Work { units: 1, run: Box::new(|| Ok(())) }) };

pub const KERNELS: &[Kernel] = &[
    Kernel { name: "entropy of a JPEG, bt601", unit: "pixel", by_level: false, make: |_| jpeg(Gray::Bt601) },
    Kernel { name: "entropy of a JPEG, luma", unit: "pixel", by_level: false, make: |_| jpeg(Gray::Luma) },
    Kernel { name: "entropy of a gray array", unit: "pixel", by_level: false, make: |_| array(1) },
    Kernel { name: "entropy of an RGB array", unit: "pixel", by_level: false, make: |_| array(3) },
    Kernel {
        name: "assign float32 rows",
        unit: "product",
        by_level: true,
        make: |level| assign(level, |value| value as f32),
    },
    Kernel { name: "assign float16 rows", unit: "product", by_level: true, make: |level| assign(level, f16::from_f64) },
    Kernel { name: "select rows", unit: "row", by_level: false, make: |_| select() },
    Kernel { name: "pack centroids", unit: "number", by_level: true, make: |_| pack() },
    Kernel { name: "digest rows", unit: "byte", by_level: false, make: |_| digest() },
    Kernel { name: "fit centroids", unit: "row", by_level: true, make: |_| fit() },
];

fn par() -> Par<'static> {
    Par::new(Some(1))
}

fn jpeg(gray: Gray) -> Result<Work> {
    const TILE: &[u8] = include_bytes!("tile.jpg");
    let options = GrayOptions::new(gray, None, None, None)?;
    let run = move || {
        for entropy in entropies_from_inputs(&[Input::Bytes(TILE)], &options, &Limits::default(), &par())? {
            black_box(entropy?);
        }
        Ok(())
    };
    Ok(Work { units: 48 * 48, run: Box::new(run) })
}

fn array(bands: usize) -> Result<Work> {
    const SIDE: usize = 128;
    // Neighbors are alike, as in images.
    let samples: Vec<u8> =
        (0..SIDE * SIDE * bands).map(|i| (i / 40 % 200) as u8 + (hash64(0, i as u64) % 8) as u8).collect();
    let options = GrayOptions::new(Gray::Bt601, None, None, None)?;
    let run = move || {
        let image = ImageRef { width: SIDE, height: SIDE, bands, samples: SamplesRef::U8(&samples) };
        black_box(entropies_from_arrays(1, |_, with| with(image), &options, &par())?);
        Ok(())
    };
    Ok(Work { units: SIDE * SIDE, run: Box::new(run) })
}

/// Values around zero, about gaussian.
fn noise(seed: u64, n: usize) -> impl Iterator<Item = f64> {
    (0..n as u64).map(move |i| (0..4).map(|part| uniform(seed, 4 * i + part) - 0.5).sum())
}

fn units(seed: u64, n: usize, dim: usize) -> Result<Centroids> {
    let mut values: Vec<f64> = noise(seed, n * dim).collect();
    for row in values.chunks_exact_mut(dim) {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    Ok(Centroids::new(&Rows::from_slice(&values, dim)?)?)
}

/// Rows about the centroids, as embeddings are, so that the filter leaves one or two; the centroids are packed before.
fn assign<T: Element + 'static>(level: Level, from: fn(f64) -> T) -> Result<Work> {
    const DIM: usize = 128;
    const K: usize = 192;
    let n = if level.name() == "scalar" { 1 } else { 24 };
    let centroids: &'static Centroids = Box::leak(Box::new(units(2, K, DIM)?));
    let near = centroids.vectors().iter().zip(noise(1, n * DIM));
    let values: Vec<T> = near.map(|(&c, noise)| from(f64::from(c) + 0.05 * noise)).collect();
    let prepared = Assigner::new(centroids, assign::Options::default())?;
    let run = move || {
        black_box(prepared.assign(&Rows::from_slice(&values, DIM)?, OnInvalid::Raise, &par())?);
        Ok(())
    };
    Ok(Work { units: n * K * DIM, run: Box::new(run) })
}

/// One row, so that little but the packing counts.
fn pack() -> Result<Work> {
    const DIM: usize = 128;
    const K: usize = 16;
    let centroids = units(2, K, DIM)?;
    let row: Vec<f32> = noise(1, DIM).map(|value| value as f32).collect();
    let run = move || {
        let options = assign::Options::default();
        black_box(assign::assign(&Rows::from_slice(&row, DIM)?, &centroids, options, OnInvalid::Raise, &par())?);
        Ok(())
    };
    Ok(Work { units: K * DIM, run: Box::new(run) })
}

fn digest() -> Result<Work> {
    const DIM: usize = 1024;
    const N: usize = 16;
    let values: Vec<f32> = noise(6, N * DIM).map(|value| value as f32).collect();
    let run = move || {
        black_box(rows::digest(&Rows::from_slice(&values, DIM)?, &par())?);
        Ok(())
    };
    Ok(Work { units: N * DIM * size_of::<f32>(), run: Box::new(run) })
}

fn select() -> Result<Work> {
    const N: usize = 300;
    const K: usize = 10;
    let labels: Vec<i32> = (0..N as u64).map(|row| (hash64(3, row) % K as u64) as i32).collect();
    let similarity: Vec<f32> = (0..N as u64).map(|row| uniform(4, row) as f32).collect();
    let run = move || {
        black_box(select::select(&labels, &similarity, &select::Options::new(K, N * 3 / 20), &par())?);
        Ok(())
    };
    Ok(Work { units: N, run: Box::new(run) })
}

fn fit() -> Result<Work> {
    const N: usize = 40;
    const DIM: usize = 16;
    let values: Vec<f32> = noise(5, N * DIM).map(|value| value as f32).collect();
    let options = kmeans::Options { n_init: 1, max_iter: 3, tol: 0.0, ..kmeans::Options::new(4) };
    let run = move || {
        black_box(kmeans::fit(&Rows::from_slice(&values, DIM)?, &options, OnInvalid::Raise, &par())?);
        Ok(())
    };
    Ok(Work { units: N, run: Box::new(run) })
}
