//! What a row works on: a fresh host, sandboxes on it, and one configuration that every plugin understands.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;
use serde_json::{Value, json};

use super::{
    answer::Answer,
    outcome::{Check, Miss, case, ensure, not_applicable},
    plugin::{Call, Plugin},
    view,
};
use crate::lab;

/// Everything of the suite bears this name, as everything of a lab does.
pub(super) const LAB: &str = "minicni-conf";
/// The name of the network under test.
pub(super) const NETWORK: &str = "conf";
/// The host's own addresses.
pub(super) const HOST_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 77, 1)), IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1))];

/// A host and what is on it.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// The plugin under test.
    pub(super) plugin: &'a Plugin,
    /// The host's namespace.
    pub(super) host: Netns,
    /// Its path.
    pub(super) host_path: PathBuf,
    /// `ranges` of the configuration: a list of lists, one list per address family.
    pub(super) ranges: Value,
    /// `cniVersion` of the configuration.
    pub(super) version: &'static str,
    name: String,
    namespaces: Vec<PathBuf>,
}

/// A sandbox, which a container may be attached in.
#[derive(Debug)]
pub(super) struct Pod {
    /// `CNI_CONTAINERID`.
    pub(super) id: String,
    /// Its namespace.
    pub(super) netns: Netns,
    /// `CNI_NETNS`.
    pub(super) path: PathBuf,
}

impl Pod {
    /// Removes the name of its namespace, as when its last process ended and the runtime unmounted it. Gives
    /// `CNI_CONTAINERID` and `CNI_NETNS`.
    pub(super) fn end(self) -> Result<(String, PathBuf)> {
        let Self { id, netns, path } = self;
        drop(netns);
        Netns::delete_named(&path)?;
        Ok((id, path))
    }
}

impl<'a> Bench<'a> {
    /// A host with an uplink and nothing else.
    pub(super) fn new(plugin: &'a Plugin, number: usize) -> Result<Self> {
        let name = format!("{LAB}-{number}");
        let host_path = namespace_path(&format!("{name}-host"));
        let host = Netns::create_named(&host_path)?;
        let version = plugin.newest();
        let namespaces = vec![host_path.clone()];
        let bench = Self { plugin, host, host_path, ranges: ranges(&["10.77.0.0/24"]), version, name, namespaces };
        for directory in [bench.state_dir(), bench.data_dir(), bench.directory("files")] {
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let [v4, v6] = HOST_ADDRESSES;
        for arguments in [
            "link add uplink0 type veth peer name wire0",
            &format!("address add {v4}/24 dev uplink0"),
            &format!("address add {v6}/64 dev uplink0 nodad"),
            "link set wire0 up",
            "link set uplink0 up",
            "route add default via 192.168.77.254",
        ] {
            ip(&bench.host, arguments)?;
        }
        Ok(bench)
    }

    fn directory(&self, name: &str) -> PathBuf {
        lab::directory(LAB).join(&self.name).join(name)
    }

    /// Where minicni keeps its leases.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.directory("state")
    }

    /// Where host-local keeps its leases.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.directory("host-local")
    }

    fn bpf_dir(&self) -> PathBuf {
        bpf_mount().join(&self.name)
    }

    /// The path of a file that a row may make.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory("files").join(name)
    }

    /// Both families, in this order.
    pub(super) fn dual_stack(&mut self) {
        self.ranges = ranges(&["10.77.0.0/24", "fd77::/64"]);
    }

    /// A pool of so many addresses, at most 200.
    pub(super) fn pool(&mut self, size: u8) {
        self.ranges = json!([[{
            "subnet": "10.77.0.0/24", "rangeStart": "10.77.0.10", "rangeEnd": format!("10.77.0.{}", 9 + size),
        }]]);
    }

    /// The configuration, in the one shape that every plugin gets; each reads its own keys of it.
    pub(super) fn config(&self) -> Value {
        json!({
            "cniVersion": self.version,
            "name": NETWORK,
            "type": self.plugin.name,
            "ipam": {
                "type": "host-local", "ranges": self.ranges, "dataDir": self.data_dir(), "routes": self.routes(),
            },
            // minicni's place for what `ipam` says to the others.
            "ranges": self.ranges,
            "isGateway": true,
            "bridge": "cni-conf0",
            "stateDir": self.state_dir(),
            "bpfDir": self.bpf_dir(),
        })
    }

    fn routes(&self) -> Value {
        let v6 = self.ranges.to_string().contains("::");
        if v6 { json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]) } else { json!([{"dst": "0.0.0.0/0"}]) }
    }

    /// A sandbox with nothing in it but its loopback device.
    pub(super) fn pod(&mut self, id: &str) -> Result<Pod> {
        let path = namespace_path(&format!("{}-{id}", self.name));
        let netns = Netns::create_named(&path)?;
        self.namespaces.push(path.clone());
        Ok(Pod { id: id.to_owned(), netns, path })
    }

    /// A command for a container, as a runtime gives it.
    pub(super) fn call(&self, command: &str, pod: &Pod) -> Call<'_> {
        self.command(command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", "eth0")
            .config(&self.config())
    }

    /// A command that is about no container.
    pub(super) fn command(&self, command: &str) -> Call<'_> {
        Call::new(&self.plugin.path, &self.host, command).config(&self.config())
    }

    /// ADD, which has to succeed; gives the result.
    pub(super) fn add(&self, pod: &Pod) -> Result<Value, Miss> {
        case("ADD", self.call("ADD", pod).run()?.result())
    }

    /// DEL, which has to succeed in silence.
    pub(super) fn del(&self, pod: &Pod) -> Check {
        case("DEL", self.call("DEL", pod).run()?.silence())
    }

    /// CHECK with the result of an ADD.
    pub(super) fn check(&self, pod: &Pod, result: &Value) -> Result<Answer, Miss> {
        Ok(self.call("CHECK", pod).config(&self.config_with("prevResult", result)).run()?)
    }

    /// The configuration with one more key.
    pub(super) fn config_with(&self, key: &str, value: &Value) -> Value {
        let mut config = self.config();
        config[key] = value.clone();
        config
    }

    /// A new container that is attached.
    pub(super) fn attached(&mut self, id: &str) -> Result<(Pod, Value), Miss> {
        let pod = self.pod(id)?;
        let result = self.add(&pod)?;
        Ok((pod, result))
    }

    /// The host as it is once it has seen a first container come and go: some plugins leave a bridge behind.
    pub(super) fn warm(&mut self) -> Result<view::View, Miss> {
        let (pod, _) = self.attached("warm")?;
        self.del(&pod)?;
        Ok(view::settled(&self.host)?)
    }

    /// Fails unless devices and routes on the host are as they were. The kernel takes its time to end a namespace.
    pub(super) fn unchanged_since(&self, before: &view::View) -> Check {
        let now = view::until(&self.host, before)?;
        ensure(now == *before, "devices and routes on the host as before", view::difference(before, &now))
    }

    /// Fails unless exactly so many addresses of the pool can be had.
    pub(super) fn free_addresses(&mut self, count: u8) -> Check {
        for number in 0..count {
            let pod = self.pod(&format!("free{number}"))?;
            case(format!("address {} of {count} that are to be free", number + 1), self.add(&pod))?;
        }
        let pod = self.pod("beyond")?;
        let answer = self.call("ADD", &pod).run()?;
        case(format!("with all {count} free addresses taken"), answer.error().map(drop))
    }

    /// Fails as not applicable unless the plugin lists a version.
    pub(super) fn need(&mut self, version: &'static str) -> Check {
        if !self.plugin.serves(version) {
            return Err(not_applicable(format!("VERSION does not list {version}")));
        }
        self.version = version;
        Ok(())
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            if let Err(error) = Netns::delete_named(namespace) {
                eprintln!("cleaning up: {error}");
            }
        }
        for directory in [self.bpf_dir(), lab::directory(LAB).join(&self.name)] {
            // Not there where the plugin made nothing; what else is left goes with the suite's end.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Where the suite's bpf file system is mounted; [`lab::clean`] looks for it there.
pub(super) fn bpf_mount() -> PathBuf {
    lab::directory(LAB).join("host/bpf")
}

fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// `ranges` of one prefix per family.
pub(super) fn ranges(subnets: &[&str]) -> Value {
    subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect()
}

/// Runs `ip` inside a namespace and gives what it printed.
pub(super) fn ip(netns: &Netns, arguments: &str) -> Result<String> {
    let output = netns.run(|| Command::new("ip").args(arguments.split_whitespace()).output())?.context("run ip")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
