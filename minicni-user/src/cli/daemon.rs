use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use tracing::{error, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::Directories;
use crate::{
    daemon::{
        run::{Options, run as run_daemon},
        source::{ApiOptions, SourceOptions},
    },
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
    /// auto: eBPF where the kernel can, else routes; ebpf: eBPF or an error; route: the kernel's routes alone
    #[arg(long, env = "MINICNI_DATAPATH", default_value_t = Datapath::Auto, value_name = "auto|ebpf|route")]
    datapath: Datapath,
    /// MTU of the pods' interfaces [default: the uplink's]
    #[arg(long, env = "MINICNI_MTU", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65_535))]
    mtu: Option<u32>,
    /// Level of the daemon's log, which goes to stderr
    #[arg(long, env = "MINICNI_LOG_LEVEL", value_name = "LEVEL", default_value_t = LevelFilter::INFO)]
    log_level: LevelFilter,
    /// Level of the eBPF programs' own log; anything but off makes them slower
    #[arg(long, env = "MINICNI_EBPF_LOG_LEVEL", value_enum, default_value_t = EbpfLogLevel::Off)]
    ebpf_log_level: EbpfLogLevel,
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

pub(super) fn run(arguments: Run) -> ExitCode {
    let Run { nodes, kubeconfig, apiserver, node_name, directories, datapath, mtu, log_level, ebpf_log_level } =
        arguments;
    // The client reports every attempt that fails, and an API server may be away for hours.
    let of_client = if log_level < LevelFilter::DEBUG { LevelFilter::OFF } else { log_level };
    tracing_subscriber::fmt()
        .with_max_level(log_level)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .finish()
        .with(Targets::new().with_default(log_level).with_target("kube_client", of_client))
        .init();
    let options = Options {
        source: match nodes {
            Some(file) => SourceOptions::File(file),
            None => SourceOptions::Api(ApiOptions { kubeconfig, server: apiserver }),
        },
        node_name,
        state: directories.state(),
        pins: directories.pins(),
        datapath,
        mtu,
        ebpf_log_level: ebpf_log_level as u8,
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
