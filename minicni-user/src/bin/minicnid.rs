//! The node daemon and the operator's command line. See [`minicni::daemon`] and [`minicni::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use minicni::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::run(Arguments::parse())
}
