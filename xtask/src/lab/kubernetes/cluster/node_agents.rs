//! What runs on every node: containerd, kubelet and kube-proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{DNS_ADDRESS, Machine, POD_CIDRS, Place, images};
use crate::lab::kubernetes::{ApiServer, Component, Identity, binaries::Binaries};

/// How long containerd may take to start.
const LIMIT: Duration = Duration::from_secs(30);
const SOCKET: &str = "/run/containerd/containerd.sock";
const CONTAINERD: &str = include_str!("containerd.toml");

#[derive(Debug)]
pub(super) struct NodeAgents {
    binaries: Binaries,
    pki: PathBuf,
    proxy_kubeconfig: PathBuf,
}

impl NodeAgents {
    pub(super) fn new(binaries: Binaries, server: &ApiServer) -> Result<Self> {
        let proxy = Identity::user("system:kube-proxy");
        let proxy_kubeconfig = server.authority.kubeconfig("kube-proxy", &proxy, &server.url())?;
        Ok(Self { binaries, pki: server.authority.path(""), proxy_kubeconfig })
    }

    /// Starts all of them.
    pub(super) fn start_all(&self, node: &Machine, place: Place) -> Result<()> {
        let write = |path: &str, text: &str| fs::write(node.path(path), text).with_context(|| format!("write {path}"));
        write("/etc/containerd/config.toml", CONTAINERD)?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.pki.join("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "cgroupfs",
            "failSwapOn": false,
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "/run/resolv.conf",
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            // The disk is the machine's, and so may be full for a machine and not for a test.
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "5s",
            // More than that needs a capability that root in a container need not have.
            "maxOpenFiles": 20000,
            "featureGates": { "IPv6DualStack": true },
        });
        write("/etc/kubernetes/kubelet.json", &kubelet.to_string())?;
        let addresses = place.addresses().map(|address| address.to_string());
        write("/etc/kubernetes/addresses", &addresses.join(","))?;
        Self::start_containerd(node)?;
        self.start_kubelet(node)?;
        self.start_proxy(node)
    }

    /// Starts containerd and waits until it answers.
    pub(super) fn start_containerd(node: &Machine) -> Result<()> {
        let arguments = ["--config", "/etc/containerd/config.toml"].map(str::to_owned);
        node.start_daemon("containerd", Path::new("containerd"), &arguments)?;
        let start = Instant::now();
        while let Err(error) = node.run("ctr", &["version"]) {
            if start.elapsed() > LIMIT {
                return Err(error).context("containerd does not answer");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts kubelet.
    pub(super) fn start_kubelet(&self, node: &Machine) -> Result<()> {
        let addresses = fs::read_to_string(node.path("/etc/kubernetes/addresses"))?;
        let kubeconfig = self.pki.join(format!("{}.kubeconfig", node.name));
        let arguments = [
            ("config", "/etc/kubernetes/kubelet.json".to_owned()),
            ("kubeconfig", kubeconfig.display().to_string()),
            ("root-dir", "/var/lib/kubelet".to_owned()),
            ("cert-dir", "/var/lib/kubelet/pki".to_owned()),
            ("hostname-override", node.name.clone()),
            ("node-ip", addresses),
            ("container-runtime", "remote".to_owned()),
            ("container-runtime-endpoint", format!("unix://{SOCKET}")),
            ("pod-infra-container-image", images::PAUSE.to_owned()),
            ("v", "2".to_owned()),
        ];
        self.start(node, Component::Kubelet, &arguments)
    }

    fn start_proxy(&self, node: &Machine) -> Result<()> {
        // Its conntrack settings are those of the machine.
        let conntrack = ["max-per-core", "min", "tcp-timeout-established", "tcp-timeout-close-wait"];
        let conntrack = conntrack.map(|setting| format!("conntrack-{setting}"));
        let mut arguments = vec![
            ("kubeconfig", self.proxy_kubeconfig.display().to_string()),
            ("hostname-override", node.name.clone()),
            ("proxy-mode", "iptables".to_owned()),
            ("cluster-cidr", POD_CIDRS.to_owned()),
            ("feature-gates", "IPv6DualStack=true".to_owned()),
            ("v", "2".to_owned()),
        ];
        arguments.extend(conntrack.iter().map(|setting| (setting.as_str(), "0".to_owned())));
        self.start(node, Component::Proxy, &arguments)
    }

    fn start(&self, node: &Machine, component: Component, arguments: &[(&str, String)]) -> Result<()> {
        let arguments: Vec<_> = arguments.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        node.start_daemon(component.program(), &self.binaries.path(component), &arguments)
    }
}
