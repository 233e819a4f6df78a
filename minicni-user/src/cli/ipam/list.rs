use std::{collections::HashSet, fmt, net::IpAddr};

use clap::Args;
use serde::Serialize;

use super::{Answer, Entry, Failure, Scope, shortened, stores};
use crate::{
    cli::table,
    ipam::{LeaseState, boottime},
    link::Socket,
};

/// `minicnid ipam list`.
#[derive(Args, Debug)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Leases(Vec<Row>);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    address: IpAddr,
    network: String,
    /// `leased`, `cooling` or `unreadable`.
    state: &'static str,
    container_id: Option<String>,
    ifname: Option<String>,
    pod: Option<String>,
    /// Since it was leased or released.
    age_seconds: Option<u64>,
    device: Option<String>,
    device_present: Option<bool>,
    /// Why it is unreadable.
    reason: Option<String>,
}

impl List {
    pub(super) fn run(&self) -> Result<Leases, Failure> {
        let mut entries = Vec::new();
        for (network, store) in stores(&self.scope.directories.state(), self.scope.network.as_deref())? {
            entries.extend(Entry::all(&network, &store)?);
        }
        let links = Socket::open()?.links()?.into_iter();
        let devices: HashSet<_> =
            links.filter(|link| link.kind.as_deref() == Some("veth")).map(|link| link.name).collect();
        let now = boottime();
        Ok(Leases(entries.into_iter().map(|entry| Row::new(entry, &devices, now)).collect()))
    }
}

impl Row {
    fn new(entry: Entry, devices: &HashSet<String>, now: u64) -> Self {
        let pod = entry.pod().map(str::to_owned);
        let (state, since, reason) = match entry.lease.state {
            LeaseState::Leased { since, .. } => ("leased", Some(since), None),
            LeaseState::Cooling { since } => ("cooling", Some(since), None),
            LeaseState::Unreadable { reason } => ("unreadable", None, Some(reason)),
        };
        Self {
            address: entry.lease.address,
            network: entry.network,
            state,
            container_id: entry.owner.as_ref().map(|owner| owner.container_id().to_owned()),
            ifname: entry.owner.as_ref().map(|owner| owner.ifname().to_owned()),
            pod,
            age_seconds: since.map(|since| now.saturating_sub(since)),
            device_present: entry.device.as_ref().map(|device| devices.contains(device)),
            device: entry.device,
            reason,
        }
    }

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let device = match (&self.device, self.device_present) {
            (Some(device), Some(false)) => format!("{device} (missing)"),
            (device, _) => text(device),
        };
        vec![
            self.address.to_string(),
            self.network.clone(),
            self.state.to_owned(),
            self.container_id.as_deref().map_or("-", shortened).to_owned(),
            text(&self.ifname),
            text(&self.pod),
            self.age_seconds.map_or_else(|| "-".to_owned(), age),
            device,
        ]
    }
}

impl Answer for Leases {}

impl fmt::Display for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("No leases.");
        }
        let header = ["address", "network", "state", "container", "interface", "pod", "age", "device"];
        f.write_str(&table(&header, self.0.iter().map(Row::cells).collect()))
    }
}

/// `42s`, `5m`, `3h`, `2d`: the largest unit that fits.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_largest_unit_that_fits() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (3_600, "1h"), (200_000, "2d")] {
            assert_eq!(age(seconds), text);
        }
    }
}
