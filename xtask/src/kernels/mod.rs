//! Other kernels than this machine's: Debian's own, booted in qemu on this machine's files.
//!
//! Everything is emulated, so that it runs inside of any virtual machine; nothing that a clock says there is about speed,
//! unless the guest counts instructions as time.

mod guest;
mod kernel;
mod smoke;

use std::{ffi::OsString, process::ExitStatus, time::Duration};

use anyhow::{Context as _, Result, bail};

use self::guest::{Clock, Guest};
pub(crate) use self::smoke::run as smoke;
pub use self::{kernel::Release, smoke::Smoke};

/// Arguments of `kernel`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The kernel
    #[arg(value_enum)]
    kernel: Release,
    /// Take one instruction for one nanosecond: costs can be compared, whatever else this machine does
    #[arg(long)]
    count_instructions: bool,
    /// Memory of the guest in MiB; half of it may be files that it writes
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Seconds after which the guest is switched off
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// What root runs in the guest, and its arguments. It sees this machine's files; what it writes is gone afterwards
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Boots a kernel and runs a command under it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { kernel, count_instructions, memory, timeout, command } = arguments;
    let clock = if *count_instructions { Clock::Instructions } else { Clock::Time };
    let guest = Guest { clock, memory: *memory, timeout: Duration::from_secs(*timeout) };
    let (program, words) = command.split_first().context("no command")?;
    ended(guest.run(&kernel.prepare()?, program, words, None)?)
}

fn ended(status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("the command ended with {status}");
    }
    Ok(())
}
