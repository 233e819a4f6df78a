//! Pods that come and go, and what is left of them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::{
    bed::{Bed, wait},
    pods::Pod,
};
use crate::lab::kubernetes::cluster::Machine;

const PODS: usize = 100;
const AT_A_TIME: usize = 20;

pub(super) fn look(bed: &mut Bed) -> Result<String> {
    let node = &bed.cluster.nodes[0];
    let before = leftovers(bed, node)?;
    for batch in 0..PODS / AT_A_TIME {
        for number in 0..AT_A_TIME {
            let name = format!("churn{}", batch * AT_A_TIME + number);
            Pod::create(bed.kubectl(), &name, "churn", |spec| spec["nodeName"] = json!(node.name))?;
        }
        Pod::wait_for(bed.kubectl(), "churn", AT_A_TIME)?;
        // The object goes at once; kubelet ends the containers all the same.
        bed.kubectl().run(&["delete", "pods", "-l", "app=churn", "--force", "--grace-period=0"])?;
    }
    until_nothing_is_left(bed, node, &before)?;
    Ok(format!("{PODS} pods were Ready; no device, route or lease of them is left"))
}

/// Devices, routes to pods and leases of a node.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Leftovers {
    devices: BTreeSet<String>,
    routes: BTreeSet<String>,
    leases: BTreeSet<String>,
}

/// What there is on a node now.
pub(super) fn leftovers(bed: &Bed, node: &Machine) -> Result<Leftovers> {
    let names = |arguments: &[&str], key: &str| -> Result<BTreeSet<String>> {
        let found: Vec<Value> = serde_json::from_str(&node.run("ip", arguments)?)?;
        Ok(found.iter().filter_map(|found| Some(found[key].as_str()?.to_owned())).collect())
    };
    let devices = names(&["-json", "link"], "ifname")?;
    let mut routes = names(&["-json", "-4", "route", "show", "proto", "110"], "dst")?;
    routes.extend(names(&["-json", "-6", "route", "show", "proto", "110"], "dst")?);
    let list: Vec<Value> = serde_json::from_value(bed.minicnid(node, &["ipam", "list", "--json"])?)?;
    let leases = list.iter().filter(|lease| lease["state"] != "cooling");
    let leases = leases.filter_map(|lease| Some(lease["address"].as_str()?.to_owned()));
    Ok(Leftovers { devices, routes, leases: leases.collect() })
}

/// Waits until there is no more than before.
pub(super) fn until_nothing_is_left(bed: &Bed, node: &Machine, before: &Leftovers) -> Result<()> {
    let mut now = None;
    wait("nothing is left of the pods", || {
        let found = leftovers(bed, node)?;
        let same = found == *before;
        now = Some(found);
        Ok(same.then_some(()))
    })
    .with_context(|| format!("before: {before:?}; now: {now:?}"))
}
