//! A Deployment as users have them, each replica asking each.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Result, bail};
use serde_json::json;

use super::super::{
    bed::{Bed, wait},
    pods::{HTTP, Pod, spec},
    requests::ask,
};

const REPLICAS: usize = 6;

pub(super) fn look(bed: &mut Bed) -> Result<String> {
    create(bed, "six", REPLICAS)?;
    let pods = Pod::wait_for(bed.kubectl(), "six", REPLICAS)?;
    let nodes: BTreeSet<_> = pods.iter().map(|pod| &pod.node).collect();
    if nodes.len() != bed.cluster.nodes.len() {
        bail!("the replicas are on {nodes:?} alone");
    }
    let mut requests = 0;
    for from in &pods {
        let netns = from.netns(bed.machine(&from.node)?)?;
        for to in &pods {
            for address in &to.addresses {
                let answer = ask(&netns, SocketAddr::new(*address, HTTP))?;
                if answer.pod != to.name {
                    bail!("{address} of {} was answered by {}", to.name, answer.pod);
                }
                requests += 1;
            }
        }
    }
    delete(bed, "six")?;
    Ok(format!("{requests} of {requests} requests between {REPLICAS} replicas on {} nodes", nodes.len()))
}

/// Creates a Deployment of so many replicas, spread over the nodes.
pub(super) fn create(bed: &Bed, name: &str, replicas: usize) -> Result<()> {
    let mut pod = spec();
    pod["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "app": name } },
    }]);
    let labels = json!({ "app": name });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    bed.kubectl().apply(&deployment.to_string())
}

/// Deletes a Deployment and waits until its pods are gone.
pub(super) fn delete(bed: &Bed, name: &str) -> Result<()> {
    bed.kubectl().run(&["delete", "deployment", name])?;
    let selector = format!("app={name}");
    wait(&format!("the pods of {name} are gone"), || {
        let pods = bed.kubectl().run(&["get", "pods", "-l", &selector, "-o", "name"])?;
        Ok(pods.is_empty().then_some(()))
    })
}
