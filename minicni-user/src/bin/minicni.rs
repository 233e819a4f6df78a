//! The CNI plugin that the container runtime executes. See [`minicni::plugin`] for what it does.

use std::{
    io::{self, Write as _},
    panic::catch_unwind,
    process::ExitCode,
    time::Instant,
};

use minicni::{
    cni::{self, CniError, Code, Version},
    plugin::Minicni,
};

fn main() -> ExitCode {
    let plugin = Minicni { started: Instant::now() };
    let lookup = |name: &str| std::env::var(name).ok();
    let run = || cni::run(&plugin, lookup, io::stdin(), &mut io::stdout(), &mut io::stderr());
    // A runtime understands nothing but JSON on stdout. The panic itself has been told on stderr.
    let status = catch_unwind(run).unwrap_or_else(|_| {
        let error = CniError::new(Code::Internal, "minicni panicked, which is a bug; stderr says where");
        // Nobody is left to tell where even this cannot be written.
        let _ = writeln!(io::stdout(), "{}", error.to_json(Version::LATEST));
        1
    });
    ExitCode::from(status)
}
