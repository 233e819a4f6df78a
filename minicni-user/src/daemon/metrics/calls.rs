//! The calls of the plugin, which counts them itself.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::encode::counters;
use crate::{
    cni::Command,
    node::latency::{BOUNDS, CODES, COUNTED, Latencies},
};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, latencies: &Latencies) -> fmt::Result {
    let help = "How long calls of the plugin took, from the start of its process";
    let mut family = encoder.encode_descriptor("minicni_cni_duration_seconds", help, None, MetricType::Histogram)?;
    for command in COUNTED {
        for (result, failed) in [("ok", false), ("error", true)] {
            let histogram = latencies.histogram(command, failed);
            let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(histogram.buckets).collect();
            // Read once, so that the sum of the buckets is the count.
            let count = histogram.buckets.iter().sum();
            let labels = [("command", command.as_str()), ("result", result)];
            family.encode_family(&labels)?.encode_histogram::<[(&str, &str); 0]>(
                seconds(histogram.sum),
                count,
                &buckets,
                None,
            )?;
        }
    }
    let happened = |command: Command| CODES.into_iter().zip(latencies.errors(command)).filter(|(_, count)| *count > 0);
    let errors = COUNTED.into_iter().flat_map(|command| {
        happened(command)
            .map(move |(code, count)| ([("command", command.as_str().to_owned()), ("code", code.to_string())], count))
    });
    counters(encoder, "minicni_cni_errors", "Calls of the plugin that failed, by the code of the error", errors)
}

#[expect(clippy::cast_precision_loss, reason = "285 years of microseconds are exact")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
