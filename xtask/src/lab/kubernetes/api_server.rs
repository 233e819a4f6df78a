use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

use super::{
    Authority, Component, Identity, Kubectl, Process, SERVICE_ADDRESSES, SERVICE_CIDRS,
    binaries::{self, Binaries},
};
use crate::lab::{Families, Node};

/// Where it listens.
pub const PORT: u16 = 6443;
/// Its directory, in that of its node.
pub(crate) const DIRECTORY: &str = "apiserver";
const ADMIN: &str = "admin";
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
/// How long it may take to start.
const LIMIT: Duration = Duration::from_mins(2);
/// How often it is asked.
const TURN: Duration = Duration::from_millis(100);

/// An API server and its etcd, in a network namespace, with RBAC. Both are gone, with all that they hold, when this is
/// dropped.
#[derive(Debug)]
pub struct ApiServer {
    /// Who signs the certificates of its clients.
    pub authority: Authority,
    binaries: Binaries,
    dir: PathBuf,
    netns: PathBuf,
    address: IpAddr,
    server: Option<Process>,
    etcd: Option<Process>,
    keep: bool,
}

impl ApiServer {
    /// Starts one on a node of a lab, for that node and those that reach it, and waits until it is ready. The programs are
    /// built if they are not there, which takes minutes: `cargo xtask test` does it before.
    pub fn on(node: &Node) -> Result<Self> {
        let addresses: Vec<IpAddr> = match node.families {
            Families::V4 => vec![node.address.into()],
            Families::Dual => vec![node.address.into(), node.address6.into()],
            Families::V6 => vec![node.address6.into()],
        };
        let state = node.state_dir();
        let dir = state.parent().context("a node has a directory")?.join(DIRECTORY);
        Self::start(&dir, &crate::lab::netns_path(&node.netns_name()), &addresses)
    }

    /// Starts one in the namespace at a path. Clients reach it at the first of these addresses; its certificate names them
    /// all. What an earlier one left in the directory is removed.
    pub fn start(dir: &Path, netns: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let binaries = binaries::need(&Component::OF_API_SERVER)?;
        remove(dir)?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let authority = Authority::create(&dir.join("pki"))?;
        let address = *addresses.first().context("an API server needs an address")?;
        let local: [IpAddr; 4] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            SERVICE_ADDRESSES.0.into(),
            SERVICE_ADDRESSES.1.into(),
        ];
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        authority.server("apiserver", &[addresses, &local].concat(), &names)?;
        authority.client("kubelet-client", &Identity::admin())?;
        let (dir, netns) = (dir.to_owned(), netns.to_owned());
        let mut this = Self { authority, binaries, dir, netns, address, server: None, etcd: None, keep: false };
        this.authority.kubeconfig(ADMIN, &Identity::admin(), &this.url())?;
        this.start_etcd()?;
        this.start_again()?;
        Ok(this)
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.address, PORT))
    }

    /// kubectl for everything.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl {
            program: self.binaries.path(Component::Kubectl),
            netns: Some(self.netns.clone()),
            cache: self.dir.join("kubectl"),
            kubeconfig: self.authority.path(&format!("{ADMIN}.kubeconfig")),
        }
    }

    /// Makes a service account and writes a kubeconfig with a token of it. What it may do is for RBAC to say.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let kubectl = self.kubectl();
        kubectl.apply(
            &serde_json::json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "namespace": namespace, "name": name },
            })
            .to_string(),
        )?;
        self.authority.kubeconfig_with_token(name, &kubectl.token(namespace, name)?, &self.url())
    }

    /// The process id of the API server, where it runs.
    pub fn id(&self) -> Option<i32> {
        self.server.as_ref().map(Process::id)
    }

    /// Ends the API server with SIGKILL. Its etcd, and with it every object, stays.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the API server does not run")?.kill()
    }

    /// Starts the API server again, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        let pki = |file: &str| self.authority.path(file).display().to_string();
        // The first network of Services is to be of the family of the server's own address.
        let services = match self.address {
            IpAddr::V4(_) => format!("{},{}", SERVICE_CIDRS.0, SERVICE_CIDRS.1),
            IpAddr::V6(_) => format!("{},{}", SERVICE_CIDRS.1, SERVICE_CIDRS.0),
        };
        let arguments = [
            ("etcd-servers", ETCD.to_owned()),
            ("bind-address", "::".to_owned()),
            ("advertise-address", self.address.to_string()),
            ("secure-port", PORT.to_string()),
            ("cert-dir", self.dir.join("serving").display().to_string()),
            ("tls-cert-file", pki("apiserver.crt")),
            ("tls-private-key-file", pki("apiserver.key")),
            ("client-ca-file", pki("ca.crt")),
            ("kubelet-client-certificate", pki("kubelet-client.crt")),
            ("kubelet-client-key", pki("kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP".to_owned()),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-key-file", pki("sa.pub")),
            ("service-account-signing-key-file", pki("sa.key")),
            ("service-cluster-ip-range", services),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("enable-admission-plugins", "NodeRestriction".to_owned()),
            // Without it, nodes keep one pod CIDR.
            ("feature-gates", "IPv6DualStack=true".to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("profiling", "false".to_owned()),
        ];
        let mut command = Command::new(self.binaries.path(Component::ApiServer));
        command.args(arguments.map(|(name, value)| format!("--{name}={value}")));
        let mut server = Process::start(&self.dir, "kube-apiserver", &Netns::open(&self.netns)?, &mut command)?;
        let kubectl = self.kubectl();
        let start = Instant::now();
        while let Err(error) = kubectl.run(&["get", "--raw", "/readyz"]) {
            server.check()?;
            if start.elapsed() > LIMIT {
                bail!("the API server is not ready after {LIMIT:?}: {error}\n{}", server.end_of_log());
            }
            sleep(TURN);
        }
        self.server = Some(server);
        Ok(())
    }

    /// Leaves both running when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        self.server.iter_mut().chain(&mut self.etcd).for_each(Process::keep);
    }

    fn start_etcd(&mut self) -> Result<()> {
        let data = self.dir.join("etcd");
        let arguments = [
            ("name", "lab".to_owned()),
            ("data-dir", data.display().to_string()),
            ("listen-client-urls", ETCD.to_owned()),
            ("advertise-client-urls", ETCD.to_owned()),
            ("listen-peer-urls", ETCD_PEERS.to_owned()),
            ("initial-advertise-peer-urls", ETCD_PEERS.to_owned()),
            ("initial-cluster", format!("lab={ETCD_PEERS}")),
            ("logger", "zap".to_owned()),
        ];
        let mut command = Command::new(self.binaries.path(Component::Etcd));
        command.args(arguments.map(|(name, value)| format!("--{name}={value}")));
        self.etcd = Some(Process::start(&self.dir, "etcd", &Netns::open(&self.netns)?, &mut command)?);
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        self.server = None;
        self.etcd = None;
        if let Err(error) = remove(&self.dir) {
            eprintln!("cleaning up {}: {error:#}", self.dir.display());
        }
    }
}

/// Ends what runs in a directory, and removes it.
fn remove(dir: &Path) -> Result<()> {
    super::end_all(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
