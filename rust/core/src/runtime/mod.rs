//! What every computation stands on: threads, CPU features and seeded random numbers.

pub mod cpu;
pub mod parallel;
pub mod rng;
