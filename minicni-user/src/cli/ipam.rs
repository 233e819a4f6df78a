//! `minicnid ipam`: the leases of a node, for people.

mod check;
mod list;
mod release;

use std::{fmt, io::Write as _, net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::Directories;
use crate::{
    cni::CniError,
    datapath::DatapathError,
    ipam::{IpamError, Lease, LeaseState, Owner, Store},
    link::LinkError,
    node::StateDir,
    plugin::reclaim,
};

/// `minicnid ipam`.
#[derive(Args, Debug)]
pub(super) struct Ipam {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the leases, and the addresses that cool down
    List(list::List),
    /// Compare the leases with devices, routes and the endpoint map
    Check(check::Check),
    /// Release an address that a pod left behind
    Release(release::Release),
}

/// Which leases.
#[derive(Args, Debug)]
struct Scope {
    /// Only this network, by the name in its configuration
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    #[command(flatten)]
    directories: Directories,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("network {network} has no leases of this boot below {}; there are those of: {}", state.display(), listed(known))]
    UnknownNetwork { network: String, state: PathBuf, known: Vec<String> },
    #[error("nobody holds {address}; networks searched below {}: {}{note}", state.display(), listed(searched))]
    UnknownAddress { address: IpAddr, state: PathBuf, searched: Vec<String>, note: String },
    #[error("{address} is leased in the networks {}; say which one with --network", listed(networks))]
    Ambiguous { address: IpAddr, networks: Vec<String> },
    #[error(
        "{address} is in use: {holder} has the device {device}; delete the pod, or detach it with --force, after which it \
         has no network"
    )]
    InUse { address: IpAddr, holder: String, device: String },
    #[error(
        "{address} was not released: {holder} is being added or deleted, its device was renamed, or it has changed hands; look again"
    )]
    Changed { address: IpAddr, holder: String },
    #[error(transparent)]
    Plugin(#[from] CniError),
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// A lease, and what belongs to it.
#[derive(Clone, Debug)]
struct Entry {
    network: String,
    lease: Lease,
    /// Who holds it; of an unreadable lease, who claims it.
    owner: Option<Owner>,
    /// The name that the holder's device on the host has, or would have.
    device: Option<String>,
}

impl Entry {
    /// The entries of a network, in the order of addresses.
    fn all(network: &str, store: &Store) -> Result<Vec<Self>, Failure> {
        let entry = |lease: Lease| {
            let owner = match &lease.state {
                LeaseState::Leased { owner, .. } => Some(owner.clone()),
                LeaseState::Cooling { .. } => None,
                LeaseState::Unreadable { .. } => store.claimant(lease.address)?,
            };
            let device = owner.as_ref().map(|owner| reclaim::device(network, owner));
            Ok(Self { network: network.to_owned(), lease, owner, device })
        };
        store.list()?.into_iter().map(entry).collect()
    }

    fn pod(&self) -> Option<&str> {
        match &self.lease.state {
            LeaseState::Leased { pod, .. } => pod.as_deref(),
            _ => None,
        }
    }

    /// `default/web (0123456789ab:eth0)`, as far as it is known.
    fn holder(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| format!("{}:{}", shortened(owner.container_id()), owner.ifname()));
        match (self.pod(), owner) {
            (Some(pod), Some(owner)) => format!("{pod} ({owner})"),
            (None, Some(owner)) => owner,
            (_, None) => "nobody".to_owned(),
        }
    }
}

/// The stores of the network named, or of all.
fn stores(state: &StateDir, network: Option<&str>) -> Result<Vec<(String, Store)>, Failure> {
    let mut stores = Vec::new();
    for name in reclaim::networks(state)? {
        stores.extend(reclaim::leases(state, &name)?.map(|store| (name, store)));
    }
    let Some(network) = network else { return Ok(stores) };
    match stores.iter().position(|(name, _)| name == network) {
        Some(found) => Ok(vec![stores.swap_remove(found)]),
        None => Err(Failure::UnknownNetwork {
            network: network.to_owned(),
            state: state.root().to_owned(),
            known: stores.into_iter().map(|(name, _)| name).collect(),
        }),
    }
}

/// As much of a container id as people read.
fn shortened(container_id: &str) -> &str {
    container_id.get(..12).unwrap_or(container_id)
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(super) fn run(arguments: &Ipam) -> ExitCode {
    match &arguments.command {
        Command::List(list) => answer(list.run(), list.json),
        Command::Check(check) => answer(check.run(), check.json),
        Command::Release(release) => answer(release.run(), false),
    }
}

/// What a command prints, and whether all is well.
trait Answer: fmt::Display + serde::Serialize {
    fn is_well(&self) -> bool {
        true
    }
}

fn answer(result: Result<impl Answer, Failure>, json: bool) -> ExitCode {
    let answer = match result {
        Ok(answer) => answer,
        Err(failure) => {
            eprintln!("minicnid: {failure}");
            return ExitCode::FAILURE;
        }
    };
    let text = if json {
        serde_json::to_string_pretty(&answer).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    } else {
        answer.to_string()
    };
    // A reader that went away is no error.
    let _ = writeln!(std::io::stdout(), "{text}");
    if answer.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
