//! Where the API server is, and with which credentials it is asked.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::api::causes;

/// Where the API server is, and who we are there: what a pod's `ServiceAccount` gives, where nobody says otherwise.
#[derive(Clone, Debug, Default)]
pub struct ApiOptions {
    /// A kubeconfig instead of the `ServiceAccount`.
    pub kubeconfig: Option<PathBuf>,
    /// Another URL of the same server, for hosts that cannot reach the one that is configured.
    pub server: Option<String>,
}

/// Why the API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No file of nodes, no kubeconfig, no `ServiceAccount`.
    #[error(
        "no source of nodes: {0}; run in a pod with a ServiceAccount token, or name a kubeconfig with --kubeconfig, or a file \
         of Node objects with --nodes"
    )]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// `--apiserver` is no URL.
    #[error("--apiserver {0:?} is not a URL like https://192.0.2.1:6443")]
    Server(String),
    /// The credentials cannot be read, or TLS not be set up.
    #[error("prepare to talk to the API server {server}: {reason}")]
    Client {
        /// Its URL.
        server: String,
        /// Why.
        reason: String,
    },
    /// There is no thread to talk to it.
    #[error("start the thread that talks to the API server: {0}")]
    Thread(#[source] std::io::Error),
}

/// What is needed to ask the API server.
pub(super) struct Access {
    pub(super) client: Client,
    /// Its URL.
    pub(super) server: String,
    /// Names or addresses by which it is known.
    pub(super) hosts: Vec<String>,
}

impl Access {
    /// Reads the credentials; does not connect yet.
    pub(super) async fn read(options: &ApiOptions) -> Result<Self, ApiError> {
        let mut config = match &options.kubeconfig {
            Some(path) => from_kubeconfig(path)
                .await
                .map_err(|source| ApiError::Kubeconfig { path: path.clone(), source: source.into() })?,
            None => Config::incluster().map_err(ApiError::NotInCluster)?,
        };
        // We wait in our own way.
        config.default_retry = false;
        let mut hosts: Vec<_> = config.cluster_url.host().map(bare).into_iter().collect();
        if let Some(server) = &options.server {
            let invalid = || ApiError::Server(server.clone());
            let url: &str = server.strip_suffix('/').unwrap_or(server);
            config.cluster_url = url.parse().map_err(|_| invalid())?;
            if !matches!(config.cluster_url.scheme_str(), Some("https" | "http")) {
                return Err(invalid());
            }
            hosts.extend(config.cluster_url.host().map(bare));
        }
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config)
            .map_err(|error| ApiError::Client { server: server.clone(), reason: causes(&error) })?;
        Ok(Self { client, server, hosts })
    }
}

async fn from_kubeconfig(path: &PathBuf) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}
