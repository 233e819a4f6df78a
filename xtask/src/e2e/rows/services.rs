//! Services beside kube-proxy, and host ports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;
use serde_json::{Value, json};

use super::super::{
    bed::{Bed, wait},
    pods::{HTTP, Pod},
    requests::ask,
};
use crate::lab::kubernetes::cluster::Place;

/// Requests until all of two or four pods have answered, by chance, but for one in many millions.
const REQUESTS: usize = 60;

/// Creates a Service, with changes of its spec, and gives it as it then is.
fn create(bed: &Bed, name: &str, selector: &Value, change: impl FnOnce(&mut Value)) -> Result<Value> {
    let mut spec = json!({ "selector": selector, "ports": [{ "port": 80, "targetPort": HTTP }] });
    change(&mut spec);
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec });
    bed.kubectl().apply(&service.to_string())?;
    bed.kubectl().get(&["service", name])
}

/// Deletes a Service.
pub(super) fn delete(bed: &Bed, name: &str) -> Result<()> {
    bed.kubectl().run(&["delete", "service", name]).map(drop)
}

fn cluster_address(service: &Value) -> Result<IpAddr> {
    service["spec"]["clusterIP"].as_str().context("the Service has no address")?.parse().context("its address")
}

/// A Service of one family, with one pod behind it, that answers a client; and its address.
pub(super) fn of_one(bed: &Bed, name: &str, pod: &Pod, ipv6: bool, client: &Netns) -> Result<IpAddr> {
    bed.kubectl().run(&["label", "--overwrite", "pod", &pod.name, &format!("one={name}")])?;
    let service = create(bed, name, &json!({ "one": name }), |spec| {
        spec["ipFamilies"] = json!([family(ipv6)]);
    })?;
    let address = cluster_address(&service)?;
    until_it_answers(client, SocketAddr::new(address, 80))?;
    Ok(address)
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

/// kube-proxy needs a moment.
pub(super) fn until_it_answers(from: &Netns, to: SocketAddr) -> Result<()> {
    wait(&format!("{to} answers"), || ask(from, to).map(|_| Some(())))
}

/// Asks until all of these pods have answered; every request has to be answered. Gives the number of requests.
fn reaches_all(from: &Netns, to: SocketAddr, pods: &BTreeSet<String>) -> Result<usize> {
    until_it_answers(from, to)?;
    let mut seen = BTreeSet::new();
    for _ in 0..REQUESTS {
        seen.insert(ask(from, to)?.pod);
    }
    if seen != *pods {
        bail!("{to} led to {seen:?}, and not to all of {pods:?}");
    }
    Ok(REQUESTS)
}

fn names(four: &[[Pod; 2]]) -> BTreeSet<String> {
    four.iter().flatten().map(|pod| pod.name.clone()).collect()
}

pub(super) fn cluster_ip(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let mut requests = 0;
    for ipv6 in [false, true] {
        let service = create(bed, "all", &json!({ "app": "four" }), |spec| spec["ipFamilies"] = json!([family(ipv6)]))?;
        let to = SocketAddr::new(cluster_address(&service)?, 80);
        for [pod, _] in &four {
            requests += reaches_all(&pod.netns(bed.machine(&pod.node)?)?, to, &names(&four))?;
        }
        // From the node itself, as kubelet and webhooks do.
        requests += reaches_all(&bed.cluster.nodes[0].netns()?, to, &names(&four))?;
        delete(bed, "all")?;
    }
    Ok(format!("{requests} of {requests} requests, by all 4 pods"))
}

pub(super) fn hairpin(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let pod = &four[0][0];
    let netns = pod.netns(bed.machine(&pod.node)?)?;
    for ipv6 in [false, true] {
        let address = of_one(bed, "itself", pod, ipv6, &netns)?;
        for _ in 0..10 {
            let answer = ask(&netns, SocketAddr::new(address, 80))?;
            if answer.pod != pod.name {
                bail!("{} answered", answer.pod);
            }
        }
        delete(bed, "itself")?;
    }
    Ok("20 of 20 requests, IPv4 and IPv6".to_owned())
}

fn node_port_of(service: &Value) -> Result<u16> {
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("the Service has no node port")?;
    Ok(u16::try_from(port)?)
}

pub(super) fn node_port(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let service = create(bed, "ports", &json!({ "app": "four" }), |spec| spec["type"] = json!("NodePort"))?;
    let port = node_port_of(&service)?;
    let outside = bed.cluster.outside()?;
    let mut requests = 0;
    for number in 1..=2 {
        let [address, _] = Place::Node(number).addresses();
        requests += reaches_all(&outside, SocketAddr::new(address, port), &names(&four))?;
    }
    delete(bed, "ports")?;
    Ok(format!("{requests} of {requests} requests from outside, by all 4 pods through each node"))
}

pub(super) fn node_port_local(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let service = create(bed, "local", &json!({ "app": "four" }), |spec| {
        spec["type"] = json!("NodePort");
        spec["externalTrafficPolicy"] = json!("Local");
    })?;
    let port = node_port_of(&service)?;
    let outside = bed.cluster.outside()?;
    let own = Place::Outside.addresses()[0];
    let mut requests = 0;
    for (index, pods) in four.iter().enumerate() {
        let [address, _] = Place::Node(u8::try_from(index)? + 1).addresses();
        let to = SocketAddr::new(address, port);
        until_it_answers(&outside, to)?;
        for _ in 0..20 {
            let answer = ask(&outside, to)?;
            if answer.client != own || pods.iter().all(|pod| pod.name != answer.pod) {
                bail!("{} of {} answered, and saw {} where {own} asked", answer.pod, pods[0].node, answer.client);
            }
            requests += 1;
        }
    }
    delete(bed, "local")?;
    Ok(format!("{requests} of {requests} requests from outside, by pods of that node, which saw the client's address"))
}

pub(super) fn host_port(bed: &mut Bed) -> Result<String> {
    const PORT: u16 = 8088;
    let (here, there) = (bed.cluster.nodes[0].name.clone(), &bed.cluster.nodes[1]);
    Pod::create(bed.kubectl(), "host-port", "host-port", |spec| {
        spec["nodeName"] = json!(here);
        spec["containers"][0]["ports"] = json!([{ "containerPort": HTTP, "hostPort": PORT }]);
    })?;
    Pod::wait_for(bed.kubectl(), "host-port", 1)?;
    let [address, _] = Place::Node(1).addresses();
    let answer = ask(&there.netns()?, SocketAddr::new(address, PORT))?;
    if answer.pod != "host-port" {
        bail!("{} answered", answer.pod);
    }
    Pod::delete(bed.kubectl(), "host-port")?;
    // The port is free again when the pod is gone.
    if let Ok(answer) = ask(&there.netns()?, SocketAddr::new(address, PORT)) {
        bail!("{} answers after its end", answer.pod);
    }
    Ok("answered by the pod; closed after its end".to_owned())
}
