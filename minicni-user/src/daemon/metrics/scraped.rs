//! All that is read when somebody asks for the metrics.

use std::{fmt, io};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{counter::Counter, family::Family},
};

use super::{
    calls,
    datapath::{FlowStates, Interfaces, encode_counters, read_counters},
    encode::gauge,
    leases::Addresses,
    process::{self, Process},
};
use crate::{
    datapath::Pins,
    node::{StateDir, latency::Latencies},
};

/// Reads the state directory and the kernel. What cannot be read is left out, and counted.
#[derive(Debug)]
pub(crate) struct Scraped {
    state: StateDir,
    pins: Pins,
    /// Seconds since 1970.
    started: f64,
    errors: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Scraped {
    /// Of a daemon that starts now; `errors` counts what could not be read.
    pub(crate) fn new(state: StateDir, pins: Pins, errors: Family<[(&'static str, &'static str); 1], Counter>) -> Self {
        for part in ["addresses", "calls", "counters", "flows", "interfaces", "process"] {
            errors.get_or_create(&[("part", part)]).inc_by(0);
        }
        Self { state, pins, started: process::unix_time(), errors }
    }

    fn keep<T, E: fmt::Display>(&self, part: &'static str, read: Result<T, E>) -> Option<T> {
        read.inspect_err(|error| {
            tracing::debug!(part, %error, "left out of the metrics");
            self.errors.get_or_create(&[("part", part)]).inc();
        })
        .ok()
    }

    /// The calls, where there is a state directory already.
    fn calls(&self) -> io::Result<Option<Latencies>> {
        match Latencies::open(&self.state) {
            Ok(latencies) => Ok(Some(latencies)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        if let Some(interfaces) = self.keep("interfaces", Interfaces::read(&self.pins)) {
            interfaces.encode(encoder)?;
        }
        if let Some(addresses) = self.keep("addresses", Addresses::read(&self.state)) {
            addresses.encode(encoder)?;
        }
        if let Some(counters) = self.keep("counters", read_counters(&self.pins)).flatten() {
            encode_counters(encoder, &counters)?;
        }
        if let Some(flows) = self.keep("flows", FlowStates::read(&self.pins)).flatten() {
            flows.encode(encoder)?;
        }
        if let Some(latencies) = self.keep("calls", self.calls()).flatten() {
            calls::encode(encoder, &latencies)?;
        }
        if let Some(process) = self.keep("process", Process::read()) {
            process.encode(encoder)?;
        }
        gauge(encoder, "process_start_time_seconds", "When minicnid started, in seconds since 1970", &self.started)
    }
}
