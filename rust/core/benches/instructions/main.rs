//! Instructions of the hot kernels, counted one by one: the same on every run, however busy the machine, where neither
//! a clock nor a virtual machine without performance counters can be trusted.
//!
//! For every kernel and CPU level a child process warms up, stops itself, runs the kernel once on one thread, and stops
//! itself again; between the stops its parent steps it from instruction to instruction. The counts are compared with
//! those of `baseline.md`, which `--bless` rewrites. Other arguments are parts of the names of kernels to run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table")]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kernels;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod steps;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    match counts::main() {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("instructions are counted on x86-64 Linux alone");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod counts {
    use std::collections::BTreeMap;
    use std::error::Error;
    use std::fmt::Write;
    use std::process::Command;

    use rsprune_core::runtime::cpu::{self, Level};

    use super::kernels::{EMPTY, KERNELS, Kernel};
    use super::steps;

    type Result<T> = std::result::Result<T, Box<dyn Error>>;

    /// Committed counts, by kernel and level.
    const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/baseline.md");
    /// A count that is off by a larger share of its baseline is a change.
    const TOLERANCE: f64 = 0.02;
    const HEAD: &str = "| kernel | level | instructions | each |\n| --- | --- | ---: | ---: |\n";

    /// Whether all counts are those of the baseline.
    pub fn main() -> Result<bool> {
        let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
        if let [flag, name] = &arguments[..]
            && flag == steps::CHILD
        {
            steps::child(kernel(name)?)?;
            return Ok(true);
        }
        let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with("--"));
        let bless = match &flags[..] {
            [] => false,
            [flag] if *flag == "--bless" && names.is_empty() => true,
            _ => return Err("expected --bless, or parts of the names of kernels, or nothing".into()),
        };
        steps::stay_here()?;
        let committed = std::fs::read_to_string(BASELINE).unwrap_or_default();
        let baseline = parse(&committed);
        let mut table = HEAD.to_string();
        let mut changes = Vec::new();
        print!("{HEAD}");
        for kernel in KERNELS.iter().filter(|k| names.is_empty() || names.iter().any(|&name| k.name.contains(name))) {
            let present = Level::present();
            let skipped = if kernel.by_level { 0 } else { present.clone().count() - 1 };
            for level in present.skip(skipped) {
                let count = steps::count(kernel, level)?.saturating_sub(steps::count(&EMPTY, level)?);
                let units = (kernel.make)(level)?.units;
                let each = count as f64 / units as f64;
                let row = format!("| {} | {} | {count} | {each:.3} a {} |", kernel.name, level.name(), kernel.unit);
                println!("{row}");
                writeln!(table, "{row}")?;
                match baseline.get(&(kernel.name.into(), level.name().into())) {
                    None => changes.push(format!("{} ({}) has no baseline", kernel.name, level.name())),
                    Some(&before) if (count as f64 - before as f64).abs() > TOLERANCE * before as f64 => {
                        let change = 100.0 * (count as f64 / before as f64 - 1.0);
                        let name = kernel.name;
                        changes
                            .push(format!("{name} ({}): {before} before, {count} now, {change:+.1} %", level.name()));
                    }
                    Some(_) => {}
                }
            }
        }
        let here = toolchain()?;
        if bless {
            std::fs::write(BASELINE, format!("# Instructions of the hot kernels\n\n{here}\n\n{table}"))?;
            println!("\nwritten to {BASELINE}");
            return Ok(true);
        }
        if !changes.is_empty() {
            println!("\nNot the baseline, by more than {} %:\n- {}", 100.0 * TOLERANCE, changes.join("\n- "));
            if !committed.contains(&here) {
                println!("The baseline is of another compiler or CPU; here: {here}");
            }
            println!("Where a change is meant, `make counts COUNTS=--bless` accepts it.");
        }
        Ok(changes.is_empty())
    }

    fn kernel(name: &str) -> Result<&'static Kernel> {
        let mut all = KERNELS.iter().chain([&EMPTY]);
        all.find(|kernel| kernel.name == name).ok_or_else(|| format!("no kernel {name:?}").into())
    }

    /// The counts in a table.
    fn parse(table: &str) -> BTreeMap<(String, String), u64> {
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, kernel, level, count, ..] = cells[..] else { return None };
            Some(((kernel.to_string(), level.to_string()), count.parse().ok()?))
        };
        table.lines().filter_map(row).collect()
    }

    /// What the counts depend on besides the code.
    fn toolchain() -> Result<String> {
        let rustc = String::from_utf8(Command::new("rustc").arg("--version").output()?.stdout)?;
        let present = cpu::features().iter().filter(|(_, present)| *present);
        let features: Vec<&str> = present.map(|(name, _)| *name).collect();
        Ok(format!("{}; {}.", rustc.trim(), features.join(", ")))
    }
}
