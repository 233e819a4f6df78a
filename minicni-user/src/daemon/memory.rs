//! How the daemon's memory is managed.

/// Tells the C library's allocator what suits a process that waits most of the time: one arena for all threads, which
/// hardly ever allocate at the same time, instead of one each with its own left-overs; and no lists of small chunks that
/// have to be merged, at some cost, whenever a large one is asked for, as every read from the API server does. To be called
/// before there are threads. Where the allocator is another one, nothing is done.
pub fn tune() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MXFAST, 0)] {
        // SAFETY: mallopt takes two numbers and touches no memory of ours. What it refuses stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}
