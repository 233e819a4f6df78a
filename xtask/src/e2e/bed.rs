//! The cluster with minicni in it, and what rows do with it.

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::datapath::Pins;
use minicni_common::{Counters, Reason, Verdict};
use serde_json::Value;

use super::{
    install,
    pods::Pod,
    report::{Outcome, rounded},
};
use crate::lab::kubernetes::{
    Kubectl,
    cluster::{Cluster, Machine, directory, images},
};

/// How long a kubelet may take to say something new of its node or of a pod. Machines may be busy.
pub(super) const LIMIT: Duration = Duration::from_mins(2);
/// How long nodes are watched that must not become ready.
const NOT_READY: Duration = Duration::from_secs(5);

pub(super) struct Bed {
    pub(super) cluster: Cluster,
    images: Vec<PathBuf>,
    four: Option<Vec<[Pod; 2]>>,
}

impl Bed {
    /// Starts the cluster and installs minicni in it; the first row is what is seen of that.
    pub(super) fn start(name: &str, nodes: u8, keep: bool, step: impl Fn(&str)) -> Result<(Self, Outcome)> {
        step("the image of minicni");
        let image = install::image()?;
        let bed = Self::without_network(name, nodes, keep, vec![image], &step)?;
        step(READY);
        let start = Instant::now();
        // Without it, no other row can be looked at.
        let seen = bed.become_ready().context(READY)?;
        let ready = Outcome {
            name: "ready",
            title: READY,
            result: Ok(seen),
            seconds: rounded(start.elapsed()),
            fast_percent: None,
        };
        Ok((bed, ready))
    }

    /// Starts the cluster, with these images beside those of the pods on every node.
    pub(super) fn without_network(
        name: &str,
        nodes: u8,
        keep: bool,
        mut images: Vec<PathBuf>,
        step: impl Fn(&str),
    ) -> Result<Self> {
        let mut cluster = Cluster::start(name, nodes, &step)?;
        if keep {
            // At once: what fails is to be looked at, too.
            cluster.keep();
            eprintln!("{}", cluster.invitation());
        }
        step("the images");
        images.extend(images::write(&directory(name))?);
        let bed = Self { cluster, images, four: None };
        bed.cluster.nodes.iter().try_for_each(|node| bed.prepare(node))?;
        let nodes = bed.cluster.nodes.len();
        wait("every kubelet has registered its node", || Ok((bed.nodes()?.len() == nodes).then_some(())))?;
        wait("every node has its pod CIDRs", || {
            let with = bed.nodes()?.into_iter().filter(|node| node["spec"]["podCIDRs"].is_array());
            Ok((with.count() == nodes).then_some(()))
        })?;
        Ok(bed)
    }

    fn become_ready(&self) -> Result<String> {
        let start = Instant::now();
        while start.elapsed() < NOT_READY {
            if let Some(node) = self.nodes()?.iter().find(|node| is_ready(node)) {
                bail!("{} is Ready without a network", node["metadata"]["name"]);
            }
            sleep(Duration::from_millis(500));
        }
        let start = Instant::now();
        install::apply(&self.cluster)?;
        self.wait_for_ready()?;
        Ok(format!("NotReady before; Ready {:.1} s after the installation began", start.elapsed().as_secs_f64()))
    }

    /// Waits until all nodes are Ready.
    pub(super) fn wait_for_ready(&self) -> Result<()> {
        let nodes = self.cluster.nodes.len();
        wait("every node is Ready", || {
            Ok((self.nodes()?.iter().filter(|node| is_ready(node)).count() == nodes).then_some(()))
        })
    }

    pub(super) fn kubectl(&self) -> &Kubectl {
        &self.cluster.kubectl
    }

    /// The Node objects.
    pub(super) fn nodes(&self) -> Result<Vec<Value>> {
        items(self.kubectl().get(&["nodes"])?)
    }

    /// Gives a node what it would get from a registry and from its distribution.
    pub(super) fn prepare(&self, node: &Machine) -> Result<()> {
        self.images.iter().try_for_each(|archive| node.load_image(archive))?;
        install::prepare(node)
    }

    /// Asks the daemon of a node.
    pub(super) fn minicnid(&self, node: &Machine, arguments: &[&str]) -> Result<Value> {
        let on_node = format!("spec.nodeName={}", node.name);
        let selector = ["-n", install::NAMESPACE, "-l", "app.kubernetes.io/name=minicni", "--field-selector", &on_node];
        let pods = items(self.kubectl().get(&[&["pods"], &selector[..]].concat())?)?;
        let pod = pods.iter().find(|pod| is_ready(pod)).with_context(|| format!("{} has no daemon", node.name))?;
        let name = pod["metadata"]["name"].as_str().context("a pod lacks a name")?;
        let exec = ["-n", install::NAMESPACE, "exec", name, "--", "minicnid"];
        serde_json::from_str(&self.kubectl().run(&[&exec, arguments].concat())?).context("minicnid printed no JSON")
    }

    /// The names of two nodes and of two pods on each of them: made by the first row that needs them.
    pub(super) fn four(&mut self) -> Result<Vec<[Pod; 2]>> {
        if self.four.is_none() {
            let names: Vec<_> = self.cluster.nodes.iter().take(2).map(|node| node.name.clone()).collect();
            for node in &names {
                for number in 1..=2 {
                    let name = format!("pod{number}-{node}");
                    Pod::create(self.kubectl(), &name, "four", |spec| spec["nodeName"] = node.as_str().into())?;
                }
            }
            let pods = Pod::wait_for(self.kubectl(), "four", 4)?;
            let pod = |name: String| pods.iter().find(|pod| pod.name == name).cloned().context("a pod is missing");
            let four = names.iter().map(|node| Ok([pod(format!("pod1-{node}"))?, pod(format!("pod2-{node}"))?]));
            self.four = Some(four.collect::<Result<_>>()?);
        }
        self.four.clone().context("the pods are there")
    }

    /// Forgets the pods of [`Bed::four`], which a row has removed.
    pub(super) fn forget_four(&mut self) {
        self.four = None;
    }

    /// The node of a name.
    pub(super) fn machine(&self, name: &str) -> Result<&Machine> {
        self.cluster.nodes.iter().find(|node| node.name == name).with_context(|| format!("there is no {name}"))
    }

    /// Packets that the nodes redirected, and that they left to the stack.
    pub(super) fn verdicts(&self) -> (u64, u64) {
        let mut sum = Counters::default();
        for node in &self.cluster.nodes {
            let pins = Pins::new(&node.path("/sys/fs/bpf/minicni"));
            sum.add(&minicni::datapath::counters(&pins).unwrap_or_default());
        }
        let with = |verdict| {
            let reasons = Reason::ALL.iter().filter(|reason| reason.verdict() == verdict);
            reasons.map(|reason| sum.get(*reason)).sum()
        };
        (with(Verdict::Fast), with(Verdict::Stack))
    }
}

const READY: &str = "nodes become Ready when the daemon is, and not before";

/// The objects of a list.
pub(super) fn items(list: Value) -> Result<Vec<Value>> {
    let Value::Object(mut list) = list else { bail!("kubectl gave no list") };
    serde_json::from_value(list.remove("items").unwrap_or_default()).context("kubectl gave no list")
}

/// Whether a node or a pod says that it is ready.
pub(super) fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Waits until something is there.
pub(super) fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(Some(found)) => return Ok(found),
            Err(error) if start.elapsed() > LIMIT => {
                return Err(error).with_context(|| format!("waiting until {what}"));
            }
            Ok(None) if start.elapsed() > LIMIT => bail!("not within {LIMIT:?}: {what}"),
            _ => sleep(Duration::from_millis(200)),
        }
    }
}
