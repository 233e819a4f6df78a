//! Threads of their own CPU, which nothing but the kernel interrupts.

use std::{fs, sync::Barrier, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

/// Real-time priority of client and server: above what is not real-time, below what the kernel has.
const PRIORITY: i32 = 10;
/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The first CPU that this process may use, and the second if there is one.
pub(super) fn cpus() -> Result<(usize, Option<usize>)> {
    let allowed = sched_getaffinity(SELF).context("ask for the CPUs of this process")?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    Ok((cpus.next().context("this process may use no CPU")?, cpus.next()))
}

/// The first two CPUs that this process may use.
pub(in crate::bench) fn two_cpus() -> Result<[usize; 2]> {
    match cpus()? {
        (one, Some(other)) => Ok([one, other]),
        _ => bail!("client and server are measured on two CPUs, and this process may use one alone"),
    }
}

/// Runs client and server at the same time, each on a real-time thread on its CPU, which may be the same.
pub(super) fn together<C: Send, S: Send>(
    cpus: [usize; 2],
    client: impl FnOnce() -> Result<C> + Send,
    server: impl FnOnce() -> Result<S> + Send,
) -> Result<(C, S)> {
    // Until it is a real-time one, a thread may wait for long.
    let barrier = &Barrier::new(2);
    thread::scope(|scope| {
        let ready = move |cpu| {
            let ready = real_time(cpu);
            barrier.wait();
            ready
        };
        let server = scope.spawn(move || ready(cpus[1]).and_then(|()| server()));
        let client = scope.spawn(move || ready(cpus[0]).and_then(|()| client()));
        let client = client.join().unwrap_or_else(|_| Err(anyhow!("the client panicked")));
        let server = server.join().unwrap_or_else(|_| Err(anyhow!("the server panicked")));
        Ok((client.context("the client")?, server.context("the server")?))
    })
}

/// Pins the calling thread and makes it a real-time one. It ends with its process, whatever ends that.
fn real_time(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(SELF, &set).with_context(|| format!("pin a thread to CPU {cpu}"))?;
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameter lives as long as the call, which keeps no pointer to it.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    Errno::result(result).map(drop).context(
        "become SCHED_FIFO, without which other processes are measured too; it takes CAP_SYS_NICE and, with cgroup v1, \
         a group with cpu.rt_runtime_us",
    )
}

/// CPU time that a clock has counted.
pub(super) fn spent(clock: ClockId) -> Result<Duration> {
    Ok(clock.now().context("read a clock of CPU time")?.into())
}

/// The clock of the kernel thread that handles what the interrupts of a CPU left over; none where it cannot be seen.
pub(super) fn softirq_clock(cpu: usize) -> Option<ClockId> {
    let name = format!("ksoftirqd/{cpu}\n");
    let pid = fs::read_dir("/proc").ok()?.find_map(|entry| {
        let path = entry.ok()?.path();
        let found = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == name);
        found.then(|| path.file_name()?.to_str()?.parse().ok())?
    })?;
    clock_getcpuclockid(Pid::from_raw(pid)).ok()
}
