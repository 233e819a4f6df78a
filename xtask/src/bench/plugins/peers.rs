//! The plugins, executed as a runtime does it.
//!
//! Another plugin to be measured beside is a function here, and its place in [`beside`].

use std::{
    io::{ErrorKind, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use minicni::link::Netns;
use serde_json::{Value, json};

use super::LAB;
use crate::lab::{Node, directory};

/// Where Debian's containernetworking-plugins are.
const DIR: &str = "/usr/lib/cni";
/// Those of them that are executed.
pub(in crate::bench) const PEERS: [&str; 3] = ["/usr/lib/cni/bridge", "/usr/lib/cni/ptp", "/usr/lib/cni/host-local"];

/// A plugin and its configuration.
#[derive(Debug)]
pub(in crate::bench) struct Peer {
    /// As in the tables.
    pub(in crate::bench) name: &'static str,
    program: PathBuf,
    config: Value,
}

/// A container for a pod, and what its runtime remembers of it.
#[derive(Debug)]
pub(in crate::bench) struct Pod {
    id: String,
    /// Its namespace; it goes with the lab.
    pub(in crate::bench) path: PathBuf,
    result: Option<Value>,
}

/// What minicni is measured beside, with pods of IPv4 alone. The first is what targets are about.
pub(in crate::bench) fn beside(network: &str) -> Vec<Peer> {
    vec![bridge(network), ptp(network)]
}

/// minicni on a node, with pods of IPv4 alone. Every name of a network has leases of its own.
pub(in crate::bench) fn minicni(node: &Node, program: &Path, network: &str) -> Peer {
    let config = json!({
        "cniVersion": "1.0.0", "name": network, "type": "minicni", "subnet": "10.200.0.0/16",
        "stateDir": node.state_dir(), "bpfDir": node.bpf_dir(),
    });
    Peer { name: "minicni", program: program.to_owned(), config }
}

/// As [`minicni()`], with pods of both families.
pub(in crate::bench) fn minicni_dual_stack(node: &Node, program: &Path, network: &str) -> Peer {
    let mut peer = minicni(node, program, network);
    peer.config["ranges"] = ranges(&["10.202.0.0/16", "fd02::/64"]);
    if let Some(config) = peer.config.as_object_mut() {
        config.remove("subnet");
    }
    peer
}

/// bridge with pods of IPv4 alone.
fn bridge(network: &str) -> Peer {
    with_host_local("bridge", network, "cni0", &["10.201.0.0/16"])
}

/// ptp with pods of IPv4 alone.
fn ptp(network: &str) -> Peer {
    with_host_local("ptp", &format!("{network}-ptp"), "", &["10.205.0.0/16"])
}

/// As [`bridge`], with pods of both families.
pub(in crate::bench) fn bridge_dual_stack(network: &str) -> Peer {
    with_host_local("bridge", network, "cni1", &["10.203.0.0/16", "fd03::/64"])
}

/// ptp with pods of both families.
pub(in crate::bench) fn ptp_dual_stack(network: &str) -> Peer {
    with_host_local("ptp", network, "", &["10.204.0.0/16", "fd04::/64"])
}

/// Where host-local has its leases.
pub(in crate::bench) fn host_local_dir() -> PathBuf {
    directory(LAB).join("host-local")
}

fn with_host_local(name: &'static str, network: &str, bridge: &str, subnets: &[&str]) -> Peer {
    let config = json!({
        "cniVersion": "1.0.0", "name": network, "type": name, "bridge": bridge, "isDefaultGateway": true,
        "ipam": {"type": "host-local", "ranges": ranges(subnets), "dataDir": host_local_dir()},
    });
    Peer { name, program: Path::new(DIR).join(name), config }
}

fn ranges(subnets: &[&str]) -> Value {
    subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect()
}

impl Peer {
    /// A command about a pod; milliseconds from exec to exit.
    pub(in crate::bench) fn call(&self, command: &str, pod: &mut Pod) -> Result<f64> {
        let mut config = self.config.clone();
        if let Some(result) = &pod.result {
            config["prevResult"] = result.clone();
        }
        let mut plugin = self.command(command);
        plugin.envs([("CNI_CONTAINERID", pod.id.as_str()), ("CNI_IFNAME", "eth0")]).env("CNI_NETNS", &pod.path);
        let (time, output) = self.execute(command, &mut plugin, &config)?;
        match command {
            "ADD" => pod.result = Some(serde_json::from_slice(&output.stdout)?),
            "DEL" => pod.result = None,
            _ => {}
        }
        Ok(time)
    }

    /// A command about no pod; milliseconds from exec to exit.
    pub(in crate::bench) fn ask(&self, command: &str) -> Result<f64> {
        let mut config = self.config.clone();
        // STATUS came with it.
        config["cniVersion"] = json!("1.1.0");
        Ok(self.execute(command, &mut self.command(command), &config)?.0)
    }

    fn command(&self, command: &str) -> Command {
        let mut plugin = Command::new(&self.program);
        plugin.env_clear().envs([("CNI_COMMAND", command), ("CNI_PATH", DIR)]);
        plugin
    }

    fn execute(&self, command: &str, plugin: &mut Command, config: &Value) -> Result<(f64, Output)> {
        let (time, output) = execute(plugin, config.to_string().as_bytes())?;
        if !output.status.success() {
            bail!("{command} of {}: {}", self.name, String::from_utf8_lossy(&output.stdout));
        }
        Ok((time, output))
    }
}

/// Executes a program; milliseconds from exec to exit, and what it printed.
pub(in crate::bench) fn execute(command: &mut Command, stdin: &[u8]) -> Result<(f64, Output)> {
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("execute {}", command.get_program().display()))?;
    let mut pipe = child.stdin.take().context("no stdin")?;
    // Whoever ends without reading it all says why by its exit status, or need not read it.
    if let Err(error) = pipe.write_all(stdin)
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(error).context("write to a plugin");
    }
    drop(pipe);
    let output = child.wait_with_output()?;
    Ok((milliseconds(start), output))
}

impl Pod {
    /// Its first address, as the plugin gave it.
    pub(in crate::bench) fn address(&self) -> Result<IpAddr> {
        let result = self.result.as_ref().context("the pod is not attached")?;
        let prefix: IpNet = serde_json::from_value(result["ips"][0]["address"].clone())?;
        Ok(prefix.addr())
    }
}

/// The time since then.
pub(in crate::bench) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Containers with nothing in them.
pub(in crate::bench) fn pods(name: &str, count: usize) -> Result<Vec<Pod>> {
    let pod = |number| {
        let id = format!("{name}-{number}");
        // Where and so named, the lab will remove it.
        let path = Path::new("/run/netns").join(format!("{LAB}-{id}"));
        Netns::create_named(&path)?;
        Ok(Pod { id, path, result: None })
    };
    (0..count).map(pod).collect()
}
