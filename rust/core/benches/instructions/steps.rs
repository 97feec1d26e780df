//! A child process, counted from instruction to instruction.

use std::error::Error;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr::null_mut;

use rsprune_core::runtime::cpu::Level;

use super::kernels::Kernel;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The flag before the name of the kernel that a child is to run.
pub const CHILD: &str = "--child";

/// So that the C library copies with vectors: a `rep movs` would count every byte, and is chosen by the CPU's model.
const NO_REP: &str = "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";

/// Keeps this process and its children on the CPU where it runs: a step is two switches between them, and those are
/// fastest there.
pub fn stay_here() -> Result<()> {
    // SAFETY: a set of CPUs is plain bits, of which none are set; the calls read and write that set alone.
    let outcome = unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu())?, &mut cpus);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cpus)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}

/// Instructions from the first stop of the child to the second.
pub fn count(kernel: &Kernel, level: Level) -> Result<u64> {
    let mut command = Command::new(std::env::current_exe()?);
    // The stack begins behind the environment, so that has to be the same everywhere.
    command.args([CHILD, kernel.name]).env_clear();
    command.env("RSPRUNE_CPU", level.name()).env("GLIBC_TUNABLES", NO_REP);
    // SAFETY: between fork and exec the closure makes one system call, which touches nothing of the parent.
    unsafe {
        command.pre_exec(|| {
            // Addresses decide how copies are aligned. Where this is forbidden, counts differ by a few instructions.
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let outcome = step_through(&child);
    if outcome.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    match outcome {
        Ok(count) if status.success() => Ok(count),
        Ok(_) => Err(format!("{}: {status}", kernel.name).into()),
        Err(error) => Err(format!("{} at level {}: {error}", kernel.name, level.name()).into()),
    }
}

fn step_through(child: &Child) -> Result<u64> {
    let pid = libc::pid_t::try_from(child.id())?;
    let first = stop_signal(pid)?;
    if first != libc::SIGSTOP {
        return Err(format!("stopped by signal {first} before it began").into());
    }
    let mut steps = 0;
    loop {
        resume(libc::PTRACE_SINGLESTEP, pid)?;
        match stop_signal(pid)? {
            libc::SIGTRAP => steps += 1,
            libc::SIGSTOP => break,
            signal => return Err(format!("stopped by signal {signal}").into()),
        }
    }
    resume(libc::PTRACE_CONT, pid)?;
    Ok(steps)
}

/// Waits until the child stops, and says what stopped it.
fn stop_signal(pid: libc::pid_t) -> Result<libc::c_int> {
    let mut status = 0;
    // SAFETY: `status` lives through the call, which writes to nothing else.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(io::Error::last_os_error().into());
    }
    if libc::WIFSTOPPED(status) { Ok(libc::WSTOPSIG(status)) } else { Err("ended before it was done".into()) }
}

/// Lets the stopped child go on, without the signal that stopped it.
fn resume(request: libc::c_uint, pid: libc::pid_t) -> Result<()> {
    // SAFETY: both requests ignore the address, and take the signal, none, as a number in the place of a pointer.
    let outcome = unsafe { libc::ptrace(request, pid, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) };
    if outcome == -1 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

/// The life of the child.
pub fn child(kernel: &Kernel) -> Result<()> {
    let mut work = (kernel.make)(rsprune_core::runtime::cpu::level()?)?;
    // Twice: tables are built and features probed, and then the allocator has seen it all.
    (work.run)()?;
    (work.run)()?;
    // SAFETY: this makes the parent the tracer; the pointers are ignored.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) } == -1 {
        return Err(io::Error::last_os_error().into());
    }
    stop()?;
    let outcome = (work.run)();
    stop()?;
    outcome
}

fn stop() -> Result<()> {
    // SAFETY: the signal stops this process for its tracer, and does nothing else.
    if unsafe { libc::raise(libc::SIGSTOP) } == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}

/// In the place of the C library's: hash tables draw their keys here, and their collisions shall be the same on every run.
///
/// # Safety
/// `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: libc::c_uint) -> libc::ssize_t {
    // SAFETY: the caller promises that `buffer` has room for `length` bytes.
    unsafe { buffer.write_bytes(0x5a, length) };
    length as libc::ssize_t
}
