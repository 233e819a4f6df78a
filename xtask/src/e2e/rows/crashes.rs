//! Agents of a node that are killed.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use serde_json::json;

use super::{
    super::{
        bed::Bed,
        pods::{HTTP, Pod},
        requests::{Stream, ask},
    },
    churn,
};

pub(super) fn kubelet(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let from = || four[0][0].netns(bed.machine(&four[0][0].node)?);
    let stream = Stream::start(from()?, SocketAddr::new(four[1][1].address(false)?, HTTP));
    let node = &bed.cluster.nodes[0];
    node.kill_daemon("kubelet")?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    bed.cluster.start_kubelet(node)?;
    Pod::create(bed.kubectl(), "after", "after", |spec| spec["nodeName"] = json!(node.name))?;
    let pods = Pod::wait_for(bed.kubectl(), "after", 1)?;
    let to = SocketAddr::new(pods[0].address(false)?, HTTP);
    let answer = ask(&four[1][0].netns(bed.machine(&four[1][0].node)?)?, to)?;
    if answer.pod != "after" {
        bail!("{} answered", answer.pod);
    }
    let answered = stream.finish()?;
    Pod::delete(bed.kubectl(), "after")?;
    Ok(format!("{answered} of {answered} requests meanwhile"))
}

pub(super) fn containerd(bed: &mut Bed) -> Result<String> {
    const PODS: usize = 10;
    let four = bed.four()?;
    let node = &bed.cluster.nodes[0];
    let before = churn::leftovers(bed, node)?;
    let from = four[0][0].netns(node)?;
    let stream = Stream::start(from, SocketAddr::new(four[0][1].address(false)?, HTTP));
    let create = |from: usize, to: usize| {
        (from..to).try_for_each(|number| {
            let name = format!("crash{number}");
            Pod::create(bed.kubectl(), &name, "crash", |spec| spec["nodeName"] = json!(node.name))
        })
    };
    create(0, PODS)?;
    // Some of them are being attached now.
    node.kill_daemon("containerd")?;
    bed.cluster.start_containerd(node)?;
    Pod::wait_for(bed.kubectl(), "crash", PODS)?;
    // And now some are being detached.
    bed.kubectl().run(&["delete", "pods", "-l", "app=crash", "--wait=false"])?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    node.kill_daemon("containerd")?;
    bed.cluster.start_containerd(node)?;
    Pod::wait_for(bed.kubectl(), "crash", 0)?;
    churn::until_nothing_is_left(bed, node, &before)?;
    let answered = stream.finish()?;
    Ok(format!("{PODS} pods, containerd killed twice; {answered} of {answered} requests of others meanwhile"))
}
