//! A list of plugins, executed as libcni does it.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use xtask::command::find;
use xtask::lab::{Node, Programs, runtime::PLUGINS};

/// One container's attachment to a network of several plugins.
pub(crate) struct Chain<'a> {
    pub(crate) node: &'a Node,
    /// The network, as in `/etc/cni/net.d`.
    pub(crate) conflist: Value,
    /// The runtime's values, by capability. A plugin gets those that it declares.
    pub(crate) runtime: Value,
    pub(crate) container_id: String,
    /// Empty where the runtime has none any more.
    pub(crate) netns: PathBuf,
    /// The last plugin's result, which libcni keeps until DEL.
    pub(crate) result: Option<Value>,
}

impl Chain<'_> {
    /// ADD of each plugin with the result of the one before.
    pub(crate) fn add(&mut self) -> Result<()> {
        let mut result = None;
        for plugin in self.plugins() {
            let answer = self.execute(plugin, "ADD", result.as_ref())?;
            result = Some(answer.with_context(|| format!("ADD of {plugin} has no result"))?);
        }
        self.result = result;
        Ok(())
    }

    /// CHECK of each plugin with the result of the last one.
    pub(crate) fn check(&self) -> Result<()> {
        self.plugins().iter().try_for_each(|plugin| self.execute(plugin, "CHECK", self.result.as_ref()).map(drop))
    }

    /// DEL of each plugin, the last one first.
    pub(crate) fn del(&self) -> Result<()> {
        let result = self.result.as_ref();
        self.plugins().iter().rev().try_for_each(|plugin| self.execute(plugin, "DEL", result).map(drop))
    }

    /// DEL as it comes when the runtime has forgotten everything but the container's id.
    pub(crate) fn late_del(&mut self) -> Result<()> {
        (self.netns, self.result) = (PathBuf::new(), None);
        self.del()
    }

    fn plugins(&self) -> &[Value] {
        self.conflist["plugins"].as_array().map_or(&[], Vec::as_slice)
    }

    /// A plugin's stdin.
    fn config(&self, plugin: &Value, previous: Option<&Value>) -> Value {
        let mut config = plugin.clone();
        for key in ["name", "cniVersion"] {
            config[key] = self.conflist[key].clone();
        }
        for (capability, _) in plugin["capabilities"].as_object().into_iter().flatten() {
            if let Some(value) = self.runtime.get(capability) {
                config["runtimeConfig"][capability] = value.clone();
            }
        }
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        config
    }

    fn execute(&self, plugin: &Value, command: &str, previous: Option<&Value>) -> Result<Option<Value>> {
        let netns = self.netns.to_string_lossy();
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &self.container_id),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1"),
        ];
        execute(self.node, &variables, &self.config(plugin, previous))
    }
}

/// Executes the plugin that a configuration names, in the node's namespace, and gives its answer.
pub(crate) fn execute(node: &Node, variables: &[(&str, &str)], config: &Value) -> Result<Option<Value>> {
    let program = match config["type"].as_str() {
        Some("minicni") => Programs::beside_us()?.minicni,
        other => Path::new(PLUGINS).join(other.context("a plugin has a type")?),
    };
    let mut plugin = Command::new(&program);
    plugin.current_dir("/").env_clear().env("PATH", path(node, &program)?).env("CNI_PATH", PLUGINS);
    plugin.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = node.netns.run(|| plugin.spawn())?.with_context(|| format!("execute {}", program.display()))?;
    child.stdin.take().context("a plugin has stdin")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let answer = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} {variables:?} {}: {answer} {stderr}", program.display(), json!(config));
    }
    Ok(if answer.is_empty() { None } else { Some(serde_json::from_str(&answer)?) })
}

/// Where a plugin finds other programs. Beside an ip6tables, the CHECK of portmap 1.1.1 asks for IPv6 rules of a pod
/// that has no IPv6 address: <https://github.com/containernetworking/plugins/issues/819>
fn path(node: &Node, plugin: &Path) -> Result<PathBuf> {
    if !plugin.ends_with("portmap") {
        return Ok("/usr/sbin:/usr/bin:/sbin:/bin".into());
    }
    let dir = node.state_dir().with_file_name("path");
    fs::create_dir_all(&dir)?;
    match symlink(find("iptables").context("iptables is missing")?, dir.join("iptables")) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(dir),
    }
}
