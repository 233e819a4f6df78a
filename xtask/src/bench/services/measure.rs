//! The rounds.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::sysctl;

use super::report::{Layout, Report, Series, Workload};
use crate::{
    bench::{
        datapath::{
            connections,
            path::{PORT, Path},
            request_response,
            run::to_four_digits,
            scene::{between, pair, routed_pod},
            task,
        },
        environment::{Environment, load},
    },
    lab::{
        Lab, Node, Pod, Programs,
        rules::{
            Backend,
            kube_proxy::{Endpoint, KubeProxy, Service},
        },
        traffic::Protocol,
    },
};

/// The labs, each with a node for every layout: with minicni's programs, and without.
const FAST: &str = "minicni-services";
const ROUTED: &str = "minicni-services-routed";
/// How many services there are.
const COUNTS: [usize; 3] = [10, 1_000, 5_000];
const PAUSE: Duration = Duration::from_millis(10);

/// A node, two pods that talk directly, and one that is spoken to by the last service.
struct Side<'a> {
    node: &'a Node,
    direct: Path,
    service: Path,
    backend: Ipv4Addr,
}

pub(super) fn measure(quick: bool, programs: &Programs) -> Result<Report> {
    let (rounds, time) = if quick { (7, Duration::from_millis(50)) } else { (31, Duration::from_millis(50)) };
    let (start, load_before, cpus) = (Instant::now(), load()?, task::two_cpus()?);
    let mut fast = Lab::new(FAST, 2, programs.clone())?;
    fast.start_daemons()?;
    let routed = Lab::new(ROUTED, 2, programs.clone())?;
    let mut rng = fastrand::Rng::new();
    let mut series = Vec::new();
    let layouts = [(Layout::Iptables, Backend::IptablesNft), (Layout::Nftables, Backend::Nftables)];
    for ((layout, backend), nodes) in layouts.into_iter().zip(fast.nodes.iter().zip(&routed.nodes)) {
        let sides = [Side::new(nodes.0, Node::pod)?, Side::new(nodes.1, routed_pod)?];
        for (position, count) in COUNTS.into_iter().enumerate() {
            for side in &sides {
                side.sync(backend, count, position == 0)?;
            }
            series.extend(at(layout, count, &sides, cpus[0], (rounds, time), &mut rng)?);
            eprintln!("{count} services in the layout of {layout}: {:.0?}", start.elapsed());
        }
    }
    Ok(Report {
        environment: Environment::found(load_before, start.elapsed())?,
        rounds,
        milliseconds: u64::try_from(time.as_millis())?,
        series,
    })
}

/// What is measured of a workload in a round.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Minicni,
    Routed,
    /// The same once more, as a control.
    RoutedAgain,
}

/// A round: the workloads in random order, and what is compared one after another.
fn in_turn(rng: &mut fastrand::Rng) -> Vec<(usize, Kind)> {
    let mut workloads: Vec<_> = (0..Workload::ALL.len()).collect();
    rng.shuffle(&mut workloads);
    let mut kinds = |workload| {
        let mut kinds = [Kind::Minicni, Kind::Routed, Kind::RoutedAgain];
        rng.shuffle(&mut kinds);
        kinds.map(|kind| (workload, kind))
    };
    workloads.into_iter().flat_map(&mut kinds).collect()
}

/// All workloads with one set of rules.
fn at(
    layout: Layout,
    services: usize,
    sides: &[Side<'_>; 2],
    cpu: usize,
    (rounds, time): (usize, Duration),
    rng: &mut fastrand::Rng,
) -> Result<Vec<Series>> {
    let new = |workload| Series {
        layout,
        services,
        workload,
        minicni: Vec::new(),
        routed: Vec::new(),
        again: Vec::new(),
        redirected: 0.0,
    };
    let mut series = Workload::ALL.map(new);
    let mut counts = Workload::ALL.map(|_| 0.0);
    for _ in 0..rounds {
        for (workload, kind) in in_turn(rng) {
            let (side, series) = (&sides[usize::from(kind != Kind::Minicni)], &mut series[workload]);
            let before = side.node.counters().redirected;
            let (rate, count) = side.once(series.workload, cpu, time).with_context(|| {
                format!("{services} services in the layout of {layout}: {}", series.workload.name())
            })?;
            let values = match kind {
                Kind::Minicni => &mut series.minicni,
                Kind::Routed => &mut series.routed,
                Kind::RoutedAgain => &mut series.again,
            };
            values.push(to_four_digits(rate));
            if kind == Kind::Minicni {
                counts[workload] += count;
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53 packets")]
                let redirected = (side.node.counters().redirected - before) as f64;
                series.redirected += redirected;
            }
            sleep(PAUSE);
        }
    }
    for (series, count) in series.iter_mut().zip(counts) {
        series.redirected = to_four_digits(series.redirected / count);
    }
    Ok(series.into())
}

impl<'a> Side<'a> {
    fn new(node: &'a Node, pod: impl Fn(&Node, &str) -> Result<Pod>) -> Result<Self> {
        node.netns.run(|| sysctl::write("net/ipv4/ip_forward", "1"))??;
        let pods = pair(node, &pod)?;
        // Of its own: a pod that is spoken to by two addresses from one port may have that port translated.
        let server = pod(node, "backend")?;
        let direct = between(&pods)?;
        let service = between(&[&pods[0], &server])?.by(SocketAddr::new(address(0), 80));
        Ok(Self { node, direct, service, backend: server.address()? })
    }

    /// Puts the rules of so many services on the node. The one that is used comes last, behind all the others.
    fn sync(&self, backend: Backend, count: usize, first: bool) -> Result<()> {
        let node = self.node;
        let other = |number: usize| -> Result<Service> {
            let number = u16::try_from(number)?;
            let [high, low] = number.to_be_bytes();
            Ok(service(number, SocketAddr::new(Ipv4Addr::new(10, 253, high, low).into(), PORT)))
        };
        let mut services = (1..count).map(other).collect::<Result<Vec<_>>>()?;
        services.push(service(0, SocketAddr::new(self.backend.into(), PORT)));
        let proxy = KubeProxy {
            pods: "10.244.0.0/16".parse()?,
            virtual_ips: "10.96.0.0/16".parse()?,
            node_ip: node.address.into(),
            node: node.number,
            services: &services,
        };
        if first { proxy.start(node, backend) } else { proxy.sync(node, backend) }
    }

    fn once(&self, workload: Workload, cpu: usize, time: Duration) -> Result<(f64, f64)> {
        let path = if workload.by_service() { &self.service } else { &self.direct };
        let (value, count) = if workload.connects() {
            connections::rate(path, [cpu, cpu], time)?
        } else {
            request_response::tcp(path, [cpu, cpu], time)?
        };
        if !(value.is_finite() && value > 0.0) {
            bail!("{value} is no result");
        }
        Ok((value, count))
    }
}

/// The `ClusterIP` of a service.
fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    // 10.96.0.1 is the API server's in every cluster.
    Ipv4Addr::new(10, 96, 64 + high, low).into()
}

fn service(number: u16, endpoint: SocketAddr) -> Service {
    Service {
        name: format!("bench/service{number}:http"),
        protocol: Protocol::Tcp,
        cluster: SocketAddr::new(address(number), 80),
        node_port: None,
        external_ips: Vec::new(),
        local_only: false,
        endpoints: vec![Endpoint { address: endpoint, node: 1 }],
    }
}
