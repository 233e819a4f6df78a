use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;
use serde_json::Value;

use super::Node;

/// A pod: a sandbox namespace that the plugin is executed for, as a runtime does it.
#[derive(Debug)]
pub struct Pod {
    /// Its name, and that of the Kubernetes pod.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Where the namespace is.
    pub path: PathBuf,
    /// What the plugin gets on stdin.
    pub config: Value,
    /// The result of ADD.
    pub result: Option<Value>,
    plugin: PathBuf,
}

/// What the plugin answered.
#[derive(Debug)]
pub struct Call {
    /// Whether it ended with status 0.
    pub ok: bool,
    /// The document on stdout, if there was one.
    pub answer: Option<Value>,
    /// What it said on stderr.
    pub stderr: String,
}

impl Pod {
    pub(super) fn new(name: &str, netns: Netns, path: PathBuf, config: Value, plugin: PathBuf) -> Self {
        Self { name: name.to_owned(), netns, path, config, result: None, plugin }
    }

    /// The name of its namespace, for `ip netns`.
    pub fn netns_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The container id that the runtime would give.
    pub fn container_id(&self) -> String {
        format!("{}-0123456789abcdef", self.name)
    }

    /// Executes the plugin on a node, with the environment and stdin of a runtime.
    pub fn call(&self, node: &Node, command: &str) -> Result<Call> {
        self.call_with(node, command, &[])
    }

    /// As [`Pod::call`], with other values for some variables; an empty one is set, and empty.
    pub fn call_with(&self, node: &Node, command: &str, variables: &[(&str, &str)]) -> Result<Call> {
        let mut plugin = self.command(command);
        plugin.envs(variables.iter().copied());
        let output = self.execute(node, &mut plugin)?;
        let answer = String::from_utf8(output.stdout).context("the plugin's stdout is not text")?;
        Ok(Call {
            ok: output.status.success(),
            answer: if answer.is_empty() { None } else { Some(serde_json::from_str(&answer)?) },
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The plugin's command line with the variables that containerd sets.
    pub fn command(&self, command: &str) -> Command {
        let mut plugin = Command::new(&self.plugin);
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={}", self.name);
        plugin.current_dir("/").env_clear().envs([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &self.container_id()),
            ("CNI_NETNS", &self.path.to_string_lossy()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", &arguments),
            ("CNI_PATH", "/opt/cni/bin"),
        ]);
        plugin
    }

    fn execute(&self, node: &Node, plugin: &mut Command) -> Result<Output> {
        use std::io::Write as _;
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = node.netns.run(|| plugin.spawn())?.context("execute the plugin")?;
        let mut stdin = child.stdin.take().context("the plugin has no stdin")?;
        // A plugin that answers without reading its stdin closes it.
        let _ = stdin.write_all(self.config.to_string().as_bytes());
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// ADD; the result becomes `prevResult`, as libcni's cache makes it.
    pub fn add(&mut self, node: &Node) -> Result<()> {
        let call = self.call(node, "ADD")?;
        if !call.ok {
            bail!("ADD of {}: {} {}", self.name, call.answer.unwrap_or_default(), call.stderr);
        }
        self.config["prevResult"] = call.answer.clone().unwrap_or_default();
        self.result = call.answer;
        Ok(())
    }

    /// DEL.
    pub fn del(&self, node: &Node) -> Result<()> {
        let call = self.call(node, "DEL")?;
        if call.ok { Ok(()) } else { bail!("DEL of {}: {:?}", self.name, call) }
    }

    /// The pod's IPv4 address, after ADD.
    pub fn address(&self) -> Result<Ipv4Addr> {
        let mut addresses = self.addresses().into_iter();
        let address =
            addresses.find_map(|address| if let IpAddr::V4(address) = address { Some(address) } else { None });
        address.with_context(|| format!("{} has no IPv4 address", self.name))
    }

    /// The pod's IPv6 address, after ADD.
    pub fn address6(&self) -> Result<Ipv6Addr> {
        let mut addresses = self.addresses().into_iter();
        let address =
            addresses.find_map(|address| if let IpAddr::V6(address) = address { Some(address) } else { None });
        address.with_context(|| format!("{} has no IPv6 address", self.name))
    }

    /// The pod's addresses in the order of the result; none before ADD.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.result.as_ref().and_then(|result| result["ips"].as_array());
        let addresses =
            ips.into_iter().flatten().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
        addresses.collect()
    }

    /// The name of the host's end of its veth pair, after ADD.
    pub fn host_interface(&self) -> Result<&str> {
        let name = self.result.as_ref().and_then(|result| result["interfaces"][0]["name"].as_str());
        name.with_context(|| format!("{} has no interface", self.name))
    }
}
