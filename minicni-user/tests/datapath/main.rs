//! The eBPF programs under `BPF_PROG_TEST_RUN`: crafted packets in, verdicts, counters and rewritten frames out.
//!
//! Needs root. Each test runs in a network and mount namespace of its own, with a bpf file system of its own. The
//! frames of a test that failed are in `target/pcap/`.

mod bench;
mod checksum;
mod classes;
mod endpoints;
mod forged;
mod fuzz;
mod ipv4;
mod ipv6;
mod newcomers;
mod older;
mod packets;
mod promotion;
mod shortcuts;
mod spoofing;
mod tagged;
mod traffic;
mod uplink;
mod verdicts;
