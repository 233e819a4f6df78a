//! Other kernels than this machine's: Debian's own, booted in qemu on this machine's files.
//!
//! Everything is emulated, so that it runs inside of any virtual machine; nothing that a clock says there is about speed,
//! unless the guest counts instructions as time.

mod guest;
mod kernel;
mod part;
mod smoke;
mod wiring;

use std::{
    ffi::OsString,
    io::{Read as _, Seek as _},
    process::ExitStatus,
    time::Duration,
};

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

/// What a command prints under a kernel, where instructions are counted. Fails with it if the command does.
pub(crate) fn counted(release: Release, words: &[OsString]) -> Result<String> {
    let guest = Guest { clock: Clock::Instructions, memory: 2048, timeout: Duration::from_hours(1) };
    let (program, words) = words.split_first().context("no command")?;
    let mut output = tempfile::tempfile()?;
    let status = guest.run(&release.prepare()?, program, words, Some(output.try_clone()?))?;
    let mut text = String::new();
    output.rewind()?;
    output.read_to_string(&mut text)?;
    ended(status).with_context(|| text.clone())?;
    Ok(text)
}

fn ended(status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("the command ended with {status}");
    }
    Ok(())
}
