//! The daemon's own process, by the names that every exporter uses.

use std::{
    fmt, fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage},
        time::TimeValLike as _,
    },
    unistd::{SysconfVar, sysconf},
};
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::{counter, gauge};

/// What the kernel says of this process.
#[derive(Debug)]
pub(super) struct Process {
    cpu_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_fds: u64,
    max_fds: u64,
}

impl Process {
    pub(super) fn read() -> io::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
        // proc_pid_statm(5): the first two fields are the size and the resident set, in pages.
        let statm = fs::read_to_string("/proc/self/statm")?;
        let mut pages = statm.split(' ').map(|field| field.parse().unwrap_or(0_u64));
        let mut bytes = || pages.next().unwrap_or(0) * page;
        #[expect(clippy::cast_precision_loss, reason = "285 years of microseconds are exact")]
        let cpu_seconds = micros as f64 / 1e6;
        Ok(Self {
            cpu_seconds,
            virtual_bytes: bytes(),
            resident_bytes: bytes(),
            // Without the one that lists them.
            open_fds: fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64,
            max_fds: getrlimit(Resource::RLIMIT_NOFILE)?.0,
        })
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counter(encoder, "process_cpu_seconds", "CPU time of minicnid, user and system", &self.cpu_seconds)?;
        gauge(encoder, "process_resident_memory_bytes", "Resident memory of minicnid", &self.resident_bytes)?;
        gauge(encoder, "process_virtual_memory_bytes", "Virtual memory of minicnid", &self.virtual_bytes)?;
        gauge(encoder, "process_open_fds", "Open file descriptors of minicnid", &self.open_fds)?;
        gauge(encoder, "process_max_fds", "File descriptors that minicnid may open", &self.max_fds)
    }
}

/// Seconds since 1970.
pub(super) fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
