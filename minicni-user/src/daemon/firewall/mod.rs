//! The firewall rules that pods need: masquerading where they leave the cluster, and leave to be forwarded.
//!
//! Rules are read and written by `nft` and by the programs of iptables, on a thread of its own, because those may take
//! their time. Elements that come and go with a node are written straight by netlink. There is a transaction only where
//! something differs: each makes all flows prove themselves again.

mod contents;
mod elements;
mod error;
mod foreign;
pub(super) mod former;
mod forward;
mod schedule;
mod table;
mod tool;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::oneshot;
use tracing::warn;

pub use self::error::FirewallError;
use self::{contents::Contents, forward::BACKENDS, schedule::Schedule, table::Table};
use super::{
    nodes::Node,
    problems::{Problem, Problems, Reason},
};
use crate::node::StateDir;

/// How long the routes wait for the table.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the daemon was told about masquerading.
#[derive(Clone, Debug)]
pub struct Masquerade {
    /// Whether pods get this node's address where they leave the cluster.
    pub on: bool,
    /// Where they keep theirs, beside the pods and addresses of all nodes.
    pub except: Vec<IpNet>,
}

/// What the rules depend on beside the nodes.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) masquerade: Masquerade,
    /// The UDP port of the tunnel; `None` where there is none.
    pub(super) tunnel_port: Option<u16>,
}

enum Job {
    /// Write this, where these talk to the pods; who sent it waits until the other end of the channel is gone.
    Want(Contents, Vec<IpNet>, oneshot::Sender<()>),
    /// Look soon: somebody changed rules.
    Look,
}

/// The thread that keeps the rules.
pub(super) struct Firewall {
    jobs: mpsc::Sender<Job>,
    problems: Arc<Mutex<Vec<Problem>>>,
    state: StateDir,
    asked: Asked,
    wanted: Option<Contents>,
}

/// Tells the firewall that somebody changed rules.
#[derive(Clone)]
pub(super) struct Doorbell(mpsc::Sender<Job>);

impl Doorbell {
    pub(super) fn ring(&self) {
        // There is nobody only when the daemon ends.
        let _ = self.0.send(Job::Look);
    }
}

impl Firewall {
    /// Starts the thread in the network namespace of this one. It changes nothing before the nodes are known.
    pub(super) fn start(state: StateDir, asked: Asked) -> io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let problems = Arc::default();
        let keeper =
            Keeper { problems: Arc::clone(&problems), table: Table::default(), wanted: None, senders: Vec::new() };
        thread::Builder::new().name("firewall".to_owned()).spawn(move || keeper.work(&receiver))?;
        Ok(Self { jobs, problems, state, asked, wanted: None })
    }

    pub(super) fn doorbell(&self) -> Doorbell {
        Doorbell(self.jobs.clone())
    }

    /// Makes the rules what the nodes ask for. Called before there is a route to a new node: a flow that was masqueraded
    /// stays so.
    pub(super) async fn keep(&mut self, nodes: &[Node], me: &str) {
        let own = nodes.iter().filter(|node| node.name == me).flat_map(|node| &node.pod_cidrs);
        let former = former::prefixes(&self.state, &own.copied().collect::<Vec<_>>());
        let Some(wanted) = Contents::new(nodes, me, &former, &self.asked) else { return };
        if self.wanted.as_ref() == Some(&wanted) {
            return;
        }
        let (sender, done) = oneshot::channel();
        // There is nobody if the thread panicked; then `done` is done, too.
        let _ = self.jobs.send(Job::Want(wanted.clone(), senders(nodes, me), sender));
        self.wanted = Some(wanted);
        if tokio::time::timeout(PATIENCE, done).await.is_err() {
            warn!("nftables takes longer than {PATIENCE:?}; new routes do not wait for it");
        }
    }

    /// What is wrong at the moment.
    pub(super) fn tell(&self, problems: &mut Problems) {
        for problem in locked(&self.problems).iter() {
            problems.add(problem.reason, problem);
        }
    }
}

/// Nothing that panics is done under the lock.
fn locked(problems: &Mutex<Vec<Problem>>) -> MutexGuard<'_, Vec<Problem>> {
    problems.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread works on.
struct Keeper {
    problems: Arc<Mutex<Vec<Problem>>>,
    table: Table,
    wanted: Option<Contents>,
    senders: Vec<IpNet>,
}

impl Keeper {
    /// Works until nobody can send a job any more.
    fn work(mut self, jobs: &mpsc::Receiver<Job>) {
        let mut schedule = Schedule::new(Instant::now());
        loop {
            match jobs.recv_timeout(schedule.wait(Instant::now())) {
                Ok(Job::Want(wanted, senders, done)) => {
                    let written = self.table.write(&wanted);
                    drop(done);
                    let moved = self.wanted.as_ref().is_none_or(|before| before.local() != wanted.local());
                    let now = Instant::now();
                    // What is the matter is told by the look that follows.
                    if moved || written.is_err() {
                        schedule.urgent(now);
                    } else {
                        schedule.wrote(now);
                    }
                    self.wanted = Some(wanted);
                    self.senders = senders;
                }
                Ok(Job::Look) => schedule.rung(Instant::now()),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let errors = self.look();
                    if errors.iter().any(|(_, error)| !error.is_of_others()) {
                        schedule.failed(Instant::now());
                    } else {
                        schedule.looked(Instant::now());
                    }
                    let told =
                        errors.iter().map(|(reason, error)| Problem { reason: *reason, message: error.to_string() });
                    *locked(&self.problems) = told.collect();
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Repairs what somebody changed, and says what is not as it should be.
    fn look(&mut self) -> Vec<(Reason, FirewallError)> {
        let Some(wanted) = &self.wanted else { return Vec::new() };
        let masquerade = self.table.look(wanted).err().map(|error| (Reason::MasqueradeFailed, error));
        let blocked = forward(&wanted.local(), &self.senders);
        let blocked = blocked.into_iter().map(|error| (Reason::ForwardBlocked, error));
        masquerade.into_iter().chain(blocked).collect()
    }
}

/// From where packets come that are forwarded to pods or are theirs: the pods of all nodes, and the other nodes.
fn senders(nodes: &[Node], me: &str) -> Vec<IpNet> {
    let others = nodes.iter().filter(|node| node.name != me).flat_map(|node| &node.internal_ips);
    let pods = nodes.iter().flat_map(|node| &node.pod_cidrs);
    pods.copied().chain(others.copied().map(IpNet::from)).collect()
}

/// Lets packets of pods with these addresses be forwarded, and says where that cannot be.
fn forward(pods: &[IpNet], senders: &[IpNet]) -> Vec<FirewallError> {
    let (chains, mut errors) = match foreign::chains() {
        Ok(chains) => (chains, Vec::new()),
        Err(error) => (Vec::new(), vec![error]),
    };
    errors.extend(foreign::blocking(&chains, pods, senders));
    let used = BACKENDS.into_iter().filter(|backend| backend.is_used(&chains));
    errors.extend(used.filter_map(|backend| backend.keep(pods).err()));
    errors
}

/// Whether there is anything for [`remove`], as far as that can be found out.
pub fn is_there() -> bool {
    let chains = foreign::chains().unwrap_or_default();
    table::is_there() || BACKENDS.into_iter().any(|backend| backend.is_used(&chains) && backend.is_there())
}

/// Removes everything that a daemon ever made in the firewall of this thread's network namespace, and nothing else. Goes
/// on after errors, which are returned; none where there is nothing. The daemon must not run: it would put all back.
pub fn remove() -> Vec<FirewallError> {
    // A program that is not there has made nothing.
    let is_installed = |error: &FirewallError| !matches!(error, FirewallError::NotInstalled { .. });
    let mut errors: Vec<_> = table::remove().err().into_iter().collect();
    let chains = foreign::chains().unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let used = BACKENDS.into_iter().filter(|backend| backend.is_used(&chains));
    errors.extend(used.filter_map(|backend| backend.keep(&[]).err()));
    errors.retain(is_installed);
    errors
}
