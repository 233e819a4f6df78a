//! Pods of tests: busybox's web server, which says who it is and who asks.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use minicni::link::Netns;
use serde_json::{Value, json};

use super::bed::{is_ready, items, wait};
use crate::lab::kubernetes::{
    Kubectl,
    cluster::{Machine, images},
};

/// Where the web server listens.
pub(super) const HTTP: u16 = 8080;
/// It answers with the pod's name and the client's address.
const SERVE: &str = "mkdir -p /www/cgi-bin && cd /www/cgi-bin && \
    printf '#!/bin/sh\\necho\\necho $(hostname) $REMOTE_ADDR\\n' >who && chmod 755 who && exec httpd -f -p 8080 -h /www";

/// A pod that is ready.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) addresses: Vec<IpAddr>,
}

impl Pod {
    /// Creates a pod, with changes of its spec.
    pub(super) fn create(kubectl: &Kubectl, name: &str, app: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut spec = spec();
        change(&mut spec);
        let metadata = json!({ "name": name, "labels": { "app": app } });
        kubectl.apply(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string())
    }

    /// Waits until so many pods of an app are ready, and no other is left.
    pub(super) fn wait_for(kubectl: &Kubectl, app: &str, count: usize) -> Result<Vec<Self>> {
        let selector = format!("app={app}");
        wait(&format!("{count} pods of {app} are ready"), || {
            let pods = items(kubectl.get(&["pods", "-l", &selector])?)?;
            let all = pods.len() == count && pods.iter().all(is_ready);
            all.then(|| pods.iter().map(Self::of).collect()).transpose()
        })
    }

    /// Deletes the pods of an app and waits until their objects are gone.
    pub(super) fn delete(kubectl: &Kubectl, app: &str) -> Result<()> {
        let selector = format!("app={app}");
        // kubelet 1.20 keeps the objects for up to a minute after the containers are gone.
        kubectl.run(&["delete", "pods", "-l", &selector, "--wait=true", "--timeout=120s"]).map(drop)
    }

    fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a pod lacks a name");
        let addresses = object["status"]["podIPs"].as_array().into_iter().flatten();
        let addresses = addresses.map(|ip| Ok(ip["ip"].as_str().context("a pod lacks an address")?.parse()?));
        Ok(Self {
            name: text(&object["metadata"]["name"])?,
            node: text(&object["spec"]["nodeName"])?,
            addresses: addresses.collect::<Result<_>>()?,
        })
    }

    /// Its address of a family.
    pub(super) fn address(&self, ipv6: bool) -> Result<IpAddr> {
        let mut addresses = self.addresses.iter();
        let address = addresses.find(|address| address.is_ipv6() == ipv6).copied();
        address.with_context(|| format!("{} has {:?} and no other address", self.name, self.addresses))
    }

    /// Its network namespace, which is the one on its node with its address.
    pub(super) fn netns(&self, node: &Machine) -> Result<Netns> {
        let address = self.addresses.first().with_context(|| format!("{} has no address", self.name))?;
        for path in crate::lab::entries(&node.path("/run/netns"))? {
            let Ok(netns) = Netns::open(&path) else { continue };
            if netns.run(|| has_address(*address))?? {
                return Ok(netns);
            }
        }
        anyhow::bail!("no namespace of {} has {address}, the address of {}", node.name, self.name)
    }

    /// Runs a command in its container.
    pub(super) fn exec(&self, kubectl: &Kubectl, command: &[&str]) -> Result<String> {
        kubectl.run(&[&["exec", &self.name, "--"], command].concat())
    }
}

/// Whether the calling thread's namespace has an address: nobody can bind another.
fn has_address(address: IpAddr) -> Result<bool> {
    match std::net::UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) => Err(error).context("bind an address"),
    }
}

/// What every pod of a test is.
pub(super) fn spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "web",
            "image": images::BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", SERVE],
            "ports": [{ "containerPort": HTTP }],
            "readinessProbe": { "httpGet": { "path": "/cgi-bin/who", "port": HTTP }, "periodSeconds": 1 },
        }],
    })
}

/// Where the plugins of the CNI project are on this machine.
pub(super) fn plugin(name: &str) -> PathBuf {
    PathBuf::from(crate::lab::runtime::PLUGINS).join(name)
}
