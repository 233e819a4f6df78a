use std::{fs, io, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Mode, NodeError, StateDir, boot_id};
use crate::link::Netns;

/// What was found out about the node: `node.json` in the state directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The boot in which this was written.
    pub boot_id: String,
    /// The number of the network namespace that is the host's: that of whoever wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// The node's name, where a daemon knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The prefixes of this node's pods, the cluster's primary family first; empty where no daemon knows them.
    #[serde(default)]
    pub pod_cidrs: Vec<IpNet>,
    /// Prefixes that this node had before, and that pods still have addresses of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_pod_cidrs: Vec<IpNet>,
    /// The MTU for pods in bytes, where a daemon found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The node's datapath.
    pub datapath: Mode,
}

impl Facts {
    /// Facts that only tell the datapath, of this boot and of the calling thread's namespace.
    pub fn new(datapath: Mode) -> Result<Self, NodeError> {
        let netns = Some(Netns::own_number()?);
        let boot_id = boot_id()?;
        Ok(Self {
            boot_id,
            netns,
            node: None,
            pod_cidrs: Vec::new(),
            former_pod_cidrs: Vec::new(),
            mtu: None,
            datapath,
        })
    }

    /// Reads what was written in this boot; `None` where nothing was.
    pub fn read(state: &StateDir) -> Result<Option<Self>, NodeError> {
        let facts: Option<Self> = read(state.facts())?;
        match facts {
            Some(facts) if facts.boot_id == boot_id()? => Ok(Some(facts)),
            _ => Ok(None),
        }
    }

    /// Fails where the calling thread is in another namespace than whoever wrote this. A daemon that does not see the pods'
    /// interfaces would take all of them for dead, and keep the routes of another host.
    pub fn check_netns(&self, state: &StateDir) -> Result<(), NodeError> {
        let own = Netns::own_number()?;
        match self.netns {
            Some(netns) if netns != own => Err(NodeError::OtherNetns { path: state.facts(), netns, own }),
            _ => Ok(()),
        }
    }

    /// As [`check_netns`](Self::check_netns), of what is written, if anything is.
    pub fn check_home(state: &StateDir) -> Result<(), NodeError> {
        // A malformed file says nothing about namespaces.
        Self::read(state).ok().flatten().map_or(Ok(()), |facts| facts.check_netns(state))
    }

    /// Whether the node's pods have IPv6 addresses, as far as a daemon knows.
    pub fn ipv6(&self) -> bool {
        self.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6())
    }

    /// Writes the file, atomically.
    pub fn write(&self, state: &StateDir) -> Result<(), NodeError> {
        write(state, state.facts(), self)
    }
}

/// What the daemon found wrong: `daemon.json` in the state directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DaemonReport {
    /// The daemon's process.
    pub pid: u32,
    /// Empty when all is well.
    pub problems: Vec<Reported>,
}

/// A problem in [`DaemonReport`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reported {
    /// Its kind, in one word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl DaemonReport {
    /// Reads what the last daemon wrote; `None` where there was none.
    pub fn read(state: &StateDir) -> Result<Option<Self>, NodeError> {
        read(state.daemon_report())
    }

    /// Writes the file, atomically.
    pub fn write(&self, state: &StateDir) -> Result<(), NodeError> {
        write(state, state.daemon_report(), self)
    }
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>, NodeError> {
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| NodeError::Malformed { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NodeError::File { action: "read", path, source }),
    }
}

fn write(state: &StateDir, path: PathBuf, value: &impl Serialize) -> Result<(), NodeError> {
    match serde_json::to_vec_pretty(value) {
        Ok(text) => state.replace(&path, &text),
        Err(source) => Err(NodeError::Malformed { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_were_written_and_not_after_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        assert_eq!(Facts::read(&state).unwrap(), None);
        let mut facts = Facts::new(Mode::Ebpf { without_tcp: Some("because".into()), udp_timeout: 30 }).unwrap();
        facts.pod_cidrs = vec!["10.244.1.0/24".parse().unwrap()];
        assert!(!facts.ipv6());
        facts.pod_cidrs.push("fd44:0:0:1::/64".parse().unwrap());
        assert!(facts.ipv6());
        facts.write(&state).unwrap();
        assert_eq!(Facts::read(&state).unwrap(), Some(facts.clone()));
        facts.check_netns(&state).unwrap();
        facts.netns = Some(1);
        let error = facts.check_netns(&state).unwrap_err().to_string();
        assert!(error.contains("node.json") && error.contains("namespace 1"), "{error}");
        facts.boot_id = "another".into();
        facts.write(&state).unwrap();
        assert_eq!(Facts::read(&state).unwrap(), None);
    }

    #[test]
    fn a_malformed_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        fs::write(state.facts(), "{\"bootId\":").unwrap();
        let error = Facts::read(&state).unwrap_err().to_string();
        assert!(error.contains("node.json is malformed"), "{error}");
    }
}
