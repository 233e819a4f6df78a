use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;
use serde_json::{Value, json};

use crate::lab::{Node, netns_path};

/// kubectl with a kubeconfig; of a cluster of ours, inside the network namespace in which the API server listens.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub(super) program: PathBuf,
    pub(super) netns: Option<PathBuf>,
    pub(super) cache: PathBuf,
    pub(super) kubeconfig: PathBuf,
}

impl Kubectl {
    /// Of a cluster that this machine reaches as it is.
    pub fn of(kubeconfig: &Path) -> Result<Self> {
        let program =
            crate::command::find("kubectl").context("kubectl is missing: install it, for this cluster's version")?;
        // Not the user's: what root writes there, the user cannot.
        let cache = std::env::temp_dir().join(format!("minicni-kubectl-{}", std::process::id()));
        Ok(Self { program, netns: None, cache, kubeconfig: kubeconfig.to_owned() })
    }

    /// The same with another kubeconfig, as somebody else.
    #[must_use]
    pub fn with_kubeconfig(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), ..self.clone() }
    }

    /// The same inside a node.
    #[must_use]
    pub fn inside(&self, node: &Node) -> Self {
        Self { netns: Some(netns_path(&node.netns_name())), ..self.clone() }
    }

    /// The kubeconfig that it uses.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Its command line.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = Command::new(&self.program);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        kubectl
    }

    /// Runs it and gives what it printed; what it complained about is the error.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, "")
    }

    /// As [`Kubectl::run`], with something on stdin.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut kubectl = self.command(arguments);
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = match &self.netns {
            Some(netns) => Netns::open(netns)?.run(|| kubectl.spawn())?,
            None => kubectl.spawn(),
        };
        let mut child = child.context("run kubectl")?;
        // It need not read what it does not want.
        let _ = child.stdin.take().context("kubectl has no stdin")?.write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Creates or changes objects: YAML, or JSON.
    pub fn apply(&self, objects: &str) -> Result<()> {
        self.feed(&["apply", "-f", "-"], objects).map(drop)
    }

    /// Creates an object with its status, as a kubelet or a controller would: `apply` cannot set a status.
    pub fn create_with_status(&self, collection: &str, object: &Value) -> Result<()> {
        self.feed(&["create", "--raw", collection, "-f", "-"], &object.to_string())?;
        Ok(())
    }

    /// An object, or a list of them.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<_> = ["get", "-o", "json"].iter().chain(arguments).copied().collect();
        serde_json::from_str(&self.run(&arguments)?).context("kubectl printed no JSON")
    }

    /// A token of a service account, which has to exist.
    pub fn token(&self, namespace: &str, service_account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token");
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
        let answer: Value =
            serde_json::from_str(&self.feed(&["create", "--raw", &path, "-f", "-"], &request.to_string())?)?;
        let token = answer["status"]["token"].as_str();
        Ok(token.context("the API server gave no token")?.to_owned())
    }
}
