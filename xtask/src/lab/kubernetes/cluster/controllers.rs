//! What makes an API server a control plane.

use std::{path::Path, process::Command};

use anyhow::Result;
use minicni::link::Netns;

use super::{POD_CIDRS, Process};
use crate::lab::kubernetes::{ApiServer, Component, Identity, SERVICE_CIDRS, binaries::Binaries};

/// Starts the controller manager and the scheduler.
pub(super) fn start(dir: &Path, netns: &Path, binaries: &Binaries, server: &ApiServer) -> Result<Vec<Process>> {
    let authority = &server.authority;
    let pki = |file: &str| authority.path(file).display().to_string();
    let kubeconfig = |component: Component| -> Result<String> {
        let user = format!("system:{}", component.program());
        let path = authority.kubeconfig(component.program(), &Identity::user(&user), &server.url())?;
        Ok(path.display().to_string())
    };
    let manager = kubeconfig(Component::ControllerManager)?;
    let manager_arguments = [
        ("kubeconfig", manager.clone()),
        ("authentication-kubeconfig", manager.clone()),
        ("authorization-kubeconfig", manager),
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", pki("sa.key")),
        ("root-ca-file", pki("ca.crt")),
        ("cluster-signing-cert-file", pki("ca.crt")),
        ("cluster-signing-key-file", pki("ca.key")),
        ("allocate-node-cidrs", "true".to_owned()),
        ("cluster-cidr", POD_CIDRS.to_owned()),
        ("node-cidr-mask-size-ipv4", "24".to_owned()),
        ("node-cidr-mask-size-ipv6", "64".to_owned()),
        ("service-cluster-ip-range", format!("{},{}", SERVICE_CIDRS.0, SERVICE_CIDRS.1)),
        ("feature-gates", "IPv6DualStack=true".to_owned()),
        // A node that is gone is to be noticed in the time of a test.
        ("node-monitor-grace-period", "16s".to_owned()),
        ("cert-dir", dir.join("controller-manager").display().to_string()),
    ];
    let scheduler_arguments = [
        ("kubeconfig", kubeconfig(Component::Scheduler)?),
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("cert-dir", dir.join("scheduler").display().to_string()),
    ];
    let start = |component: Component, arguments: &[(&str, String)]| {
        let mut command = Command::new(binaries.path(component));
        command.args(arguments.iter().map(|(name, value)| format!("--{name}={value}")));
        Process::start(dir, component.program(), &Netns::open(netns)?, &mut command)
    };
    Ok(vec![
        start(Component::ControllerManager, &manager_arguments)?,
        start(Component::Scheduler, &scheduler_arguments)?,
    ])
}
