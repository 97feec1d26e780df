//! The ground that every computation stands on: threads, the choice of kernels for the CPU, and seeded random numbers.

pub mod cpu;
pub mod parallel;
pub mod rng;
