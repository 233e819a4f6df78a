//! Everything a person or CI runs: build-ebpf, demo, test, conformance, e2e, bench, image.
//!
//! The library holds what the subcommands and the tests in `tests/` share: above all the [`lab`], which makes nodes
//! and pods out of namespaces.

pub mod bench;
pub mod build;
pub mod command;
pub mod conformance;
pub mod debian;
pub mod demo;
pub mod e2e;
pub mod ebpf;
pub mod image;
pub mod kernels;
pub mod lab;
pub mod manifests;
pub mod test;
pub mod traps;
