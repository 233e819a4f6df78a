use std::{
    io,
    net::{IpAddr, SocketAddr},
    panic,
    path::PathBuf,
    process::{self, ExitCode},
    str::FromStr,
};

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use tracing::{error, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{Directories, install::Install};
use crate::{
    daemon::{
        firewall::Masquerade,
        memory,
        run::{Options, run as run_daemon},
        source::{ApiOptions, SourceOptions},
        underlay::{DEFAULT_PORT, DEFAULT_VNI, Encapsulation, Settings, Uplink},
    },
    link::sysctl,
    node::Datapath,
};

/// `minicnid run`.
#[derive(Args, Debug)]
pub(super) struct Run {
    /// YAML file of Kubernetes Node objects, which is watched [default: the Kubernetes API says what nodes there are]
    #[arg(long, env = "MINICNI_NODES", value_name = "FILE", conflicts_with_all = ["kubeconfig", "apiserver"])]
    nodes: Option<PathBuf>,
    /// Credentials for the Kubernetes API [default: those of the pod's service account]
    #[arg(long, env = "MINICNI_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The API server itself, where its Service cannot be reached before kube-proxy runs
    #[arg(long, env = "MINICNI_APISERVER", value_name = "URL")]
    apiserver: Option<String>,
    /// Name of this node's object [default: the host's name]
    #[arg(long, env = "MINICNI_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    directories: Directories,
    #[command(flatten)]
    install: Install,
    /// Where /proc/sys of the host is, for a container whose own is mounted read-only
    #[arg(long, value_name = "DIR", env = "MINICNI_PROC_SYS")]
    proc_sys: Option<PathBuf>,
    /// auto: eBPF where the kernel can, else routes; ebpf: eBPF or an error; route: the kernel's routes alone
    #[arg(long, env = "MINICNI_DATAPATH", default_value_t = Datapath::Auto, value_name = "auto|ebpf|route")]
    datapath: Datapath,
    /// The interface by which this node meets the others: its name, or a prefix around one of its addresses [default: where
    /// this node's internal address is, and for others where theirs are on-link]
    #[arg(long, env = "MINICNI_UPLINK", value_name = "NAME|CIDR")]
    uplink: Option<Uplink>,
    /// Which nodes are reached through a VXLAN tunnel: none, those on no network of this host, or all
    #[arg(long, env = "MINICNI_ENCAPSULATION", default_value_t = Encapsulation::CrossSubnet,
        value_name = "never|cross-subnet|always")]
    encapsulation: Encapsulation,
    /// UDP port of the tunnel, the same on all nodes
    #[arg(long, env = "MINICNI_VXLAN_PORT", default_value_t = DEFAULT_PORT, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: u16,
    /// VXLAN network identifier of what is sent through the tunnel
    #[arg(long, env = "MINICNI_VXLAN_VNI", default_value_t = DEFAULT_VNI, value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    vxlan_vni: u32,
    /// MTU of the pods' interfaces [default: the uplink's, less what the tunnel adds where nodes are reached through it]
    #[arg(long, env = "MINICNI_MTU", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65_535))]
    mtu: Option<u32>,
    /// Give pods this node's address where they leave the cluster
    #[arg(long, env = "MINICNI_MASQUERADE", value_name = "true|false", action = ArgAction::Set, default_value_t = true)]
    masquerade: bool,
    /// Destinations for which pods keep their own address, beside the pods and nodes of the cluster: prefixes with commas
    /// between them
    #[arg(long, env = "MINICNI_NON_MASQUERADE_CIDRS", value_name = "LIST", value_delimiter = ',', value_parser = prefix)]
    non_masquerade_cidrs: Vec<IpNet>,
    /// Address and port for /metrics, /healthz and /readyz, or off
    #[arg(long, env = "MINICNI_METRICS_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:10109")]
    metrics_address: MetricsAddress,
    /// Level of the daemon's log, which goes to stderr
    #[arg(long, env = "MINICNI_LOG_LEVEL", value_name = "LEVEL", default_value_t = LevelFilter::INFO)]
    log_level: LevelFilter,
    /// Form of the daemon's log
    #[arg(long, env = "MINICNI_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Level of the eBPF programs' own log; anything but off makes them slower
    #[arg(long, env = "MINICNI_EBPF_LOG_LEVEL", value_enum, default_value_t = EbpfLogLevel::Off)]
    ebpf_log_level: EbpfLogLevel,
}

/// Where to listen, if anywhere.
#[derive(Clone, Copy, Debug)]
struct MetricsAddress(Option<SocketAddr>);

impl FromStr for MetricsAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| "not an IP address and a port, such as 127.0.0.1:10109, nor off")?;
        Ok(Self(Some(address)))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// For machines, one object on each line
    Json,
}

/// Levels as aya-log counts them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum EbpfLogLevel {
    Off = 0,
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// A prefix as somebody writes it; a single address is one, too.
fn prefix(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let prefix: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| "not a prefix such as 172.16.0.0/12 or fd00::/8".to_owned())?,
    };
    match prefix.trunc() {
        truncated if truncated == prefix => Ok(prefix),
        truncated => Err(format!("bits are set behind the prefix length; is {truncated} meant?")),
    }
}

pub(super) fn run(arguments: Run) -> ExitCode {
    memory::tune();
    let Run { install, proc_sys, .. } = arguments;
    if let Some(proc_sys) = proc_sys {
        sysctl::set_root(proc_sys);
    }
    start_log(arguments.log_level, arguments.log_format);
    end_with_any_panic();
    let Run { nodes, kubeconfig, apiserver, node_name, directories, datapath, mtu, ebpf_log_level, .. } = arguments;
    let Run { uplink, encapsulation, vxlan_port, vxlan_vni: vni, .. } = arguments;
    let Run { masquerade, non_masquerade_cidrs, metrics_address, .. } = arguments;
    let options = Options {
        source: match nodes {
            Some(file) => SourceOptions::File(file),
            None => SourceOptions::Api(ApiOptions { kubeconfig, server: apiserver }),
        },
        node_name,
        state: directories.state(),
        pins: directories.pins(),
        datapath,
        underlay: Settings { uplink, encapsulation, vxlan_port, vni },
        mtu,
        masquerade: Masquerade { on: masquerade, except: non_masquerade_cidrs },
        metrics: metrics_address.0,
        ebpf_log_level: ebpf_log_level as u8,
        install: install.options(),
    };
    // One thread: the daemon waits most of the time, and namespaces belong to threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run_daemon(options)).map_err(|error| error.to_string()),
        Err(error) => Err(format!("start the event loop: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Has a panic of any thread end the daemon. Without one of its threads it would look alive and do half of its work; whoever
/// started it starts it again.
fn end_with_any_panic() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        tell(panic);
        process::abort();
    }));
}

fn start_log(level: LevelFilter, format: LogFormat) {
    // The client reports every attempt that fails, and an API server may be away for hours.
    let of_client = if level < LevelFilter::DEBUG { LevelFilter::OFF } else { level };
    let targets = Targets::new().with_default(level).with_target("kube_client", of_client);
    let log =
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_ansi(false).with_target(false);
    // Whoever read the log may be gone, and to say that there is a panic.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.finish().with(targets).init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(targets).init(),
    }
}
