//! Rounds in random order, measured by the pods' own program.

use std::{
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    MINICNI,
    cluster::Cluster,
    report::{Path, Report, Series, Workload},
};
use crate::{
    bench::environment::{self, Environment},
    command,
    lab::kubernetes::Kubectl,
};

const NAMESPACE: &str = "minicni-bench";
const MANIFEST: &str = "deploy/bench/bench.yaml";
/// How long kube-proxy may take to know a Service, and a network to carry its first packet.
const LIMIT: Duration = Duration::from_mins(1);

/// Measures each workload over each path, in so many rounds that spreads mean something.
pub(super) fn measure(cluster: &Cluster, network: &str, quick: bool) -> Result<Report> {
    let (load, start) = (environment::load()?, Instant::now());
    let (rounds, milliseconds) = if quick { (3, 200) } else { (15, 500) };
    let pods = Pods::create(&cluster.kubectl)?;
    let mut series = Vec::new();
    for workload in Workload::ALL {
        for path in Path::ALL {
            pods.until_answered(workload, path)?;
            // What the first look at a path tells is where its packets go, and no rate.
            let before = pods.verdicts(network);
            pods.rate(workload, path, milliseconds)?;
            let fast_percent = share(before, pods.verdicts(network));
            series.push(Series { workload, path, rates: Vec::new(), fast_percent });
        }
    }
    let mut order: Vec<_> = (0..series.len()).collect();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        fastrand::shuffle(&mut order);
        for place in &order {
            let series = &mut series[*place];
            series.rates.push(pods.rate(series.workload, series.path, milliseconds)?);
        }
    }
    let version: Value = serde_json::from_str(&cluster.kubectl.run(&["version", "-o", "json"])?)?;
    Ok(Report {
        environment: Environment::found(load, start.elapsed())?,
        network: network.to_owned(),
        cluster: cluster.what.clone(),
        kubernetes: version["serverVersion"]["gitVersion"].as_str().context("the server has no version")?.to_owned(),
        rounds,
        milliseconds,
        series,
    })
}

/// Packets that were redirected and left to the stack, in all nodes.
type Verdicts = Option<(u64, u64)>;

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn share(before: Verdicts, after: Verdicts) -> Option<f64> {
    let (before, after) = (before?, after?);
    let (fast, stack) = (after.0.checked_sub(before.0)?, after.1.checked_sub(before.1)?);
    (fast + stack > 0).then(|| fast as f64 * 100.0 / (fast + stack) as f64)
}

/// The client, the servers and their Services, in a namespace that ends with this.
struct Pods<'a> {
    kubectl: &'a Kubectl,
    /// In the order of [`Path::ALL`].
    addresses: Vec<IpAddr>,
}

impl<'a> Pods<'a> {
    fn create(kubectl: &'a Kubectl) -> Result<Self> {
        kubectl.run(&["create", "namespace", NAMESPACE])?;
        let mut pods = Self { kubectl, addresses: Vec::new() };
        let manifest = command::root().join(MANIFEST);
        let manifest = manifest.to_str().context("the path of the manifest is no text")?;
        // Its own service account comes a moment after a namespace, and no pod before it.
        let start = Instant::now();
        while let Err(error) = kubectl.run(&["-n", NAMESPACE, "apply", "--validate=true", "-f", manifest]) {
            if start.elapsed() > LIMIT {
                return Err(error);
            }
            sleep(Duration::from_millis(500));
        }
        let wait = ["-n", NAMESPACE, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s"];
        kubectl
            .run(&wait)
            .context("the pods of the benchmark do not start; is the image minicni-bench on the nodes?")?;
        for path in Path::ALL {
            let (kind, field) = if path.by_service { ("service", "/spec/clusterIP") } else { ("pod", "/status/podIP") };
            let object = kubectl.get(&["-n", NAMESPACE, kind, path.server()])?;
            let address = object.pointer(field).and_then(Value::as_str);
            pods.addresses.push(address.with_context(|| format!("{kind} {} has no address", path.server()))?.parse()?);
        }
        Ok(pods)
    }

    /// Has the client measure. Gives what there was in a second.
    fn rate(&self, workload: Workload, path: Path, milliseconds: u64) -> Result<f64> {
        let place = Path::ALL.iter().position(|other| *other == path).context("every path is one of all")?;
        let (address, milliseconds) = (self.addresses[place].to_string(), milliseconds.to_string());
        let command = ["exec", "client", "--", "/traffic", workload.word(), &address, &milliseconds];
        let answer = self.kubectl.run(&[&["-n", NAMESPACE], &command[..]].concat())?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("the client said {answer:?}"))?;
        match answer["rate"].as_f64() {
            Some(rate) if rate > 0.0 => Ok(rate),
            _ => bail!("the client said {answer}"),
        }
    }

    fn until_answered(&self, workload: Workload, path: Path) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = self.rate(workload, path, 10) {
            if start.elapsed() > LIMIT {
                return Err(error).with_context(|| format!("{}: {path}", workload.name()));
            }
            sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// What minicni's daemons have counted; none where one does not say.
    fn verdicts(&self, network: &str) -> Verdicts {
        if network != MINICNI {
            return None;
        }
        let ours = ["-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/name=minicni", "-o", "name"];
        let mut sum = (0, 0);
        for pod in self.kubectl.run(&ours).ok()?.lines() {
            let status = ["-n", "kube-system", "exec", pod, "--", "minicnid", "status", "--json"];
            let status: Value = serde_json::from_str(&self.kubectl.run(&status).ok()?).ok()?;
            sum.0 += status["packets"]["fast"].as_u64()?;
            sum.1 += status["packets"]["stack"].as_u64()?;
        }
        Some(sum)
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=120s"]) {
            eprintln!("removing the namespace {NAMESPACE}: {error:#}");
        }
    }
}
