//! Beside the firewalls of others themselves, as Debian has packaged them: Docker, ufw and firewalld. They run in the
//! namespaces of a node's host, and none of them is installed.

mod docker;
mod firewalld;
mod ufw;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use minicni::daemon::firewall;
use xtask::{
    debian::{self, Archive},
    lab::{Node, Programs, runtime::Host, traffic::Client},
};

use super::IPTABLES;

/// How long a program of others may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

const PACKAGES: [&str; 4] = ["docker.io", "ufw", "firewalld", "dbus-daemon"];

/// Lays what was unpacked over the host's own programs and settings: `sh -c OVERLAY sh UNPACKED WRITTEN`.
const OVERLAY: &str = "set -eu; for dir in etc usr; do mkdir -p $2/$dir $2/$dir.work
    mount -n -t overlay -o lowerdir=$1/$dir:/$dir,upperdir=$2/$dir,workdir=$2/$dir.work overlay /$dir; done";

/// A program on the host, or rather what waits for it; the program itself ends with the host.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node's host with the firewalls in it.
struct Machine<'a> {
    host: Host,
    node: &'a Node,
}

impl<'a> Machine<'a> {
    /// A host whose `iptables` is of this backend.
    fn start(node: &'a Node, backend: &str) -> Self {
        let machine = Self { host: Host::start(node, &Programs::beside_us().unwrap()).unwrap(), node };
        let (unpacked, written) = (unpacked(), machine.host.path("/written"));
        machine.sh(&format!("set {} {}; {OVERLAY}", unpacked.display(), written.display()));
        for program in IPTABLES {
            machine.run(&format!("ln -sfn /usr/sbin/{program}-{backend} /etc/alternatives/{program}"));
        }
        machine
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.host.command(program);
        command.env("XTABLES_LOCKFILE", self.node.xtables_lock());
        command
    }

    /// Runs a program with arguments that have no spaces in them.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        xtask::command::output(self.command(words.next().unwrap()).args(words)).unwrap()
    }

    /// Runs a script.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        xtask::command::output(self.command("sh").args(["-c", script])).unwrap()
    }

    /// Whether a program ends well.
    fn succeeds(&self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        self.command(words.next().unwrap()).args(words).output().unwrap().status.success()
    }

    /// Starts a program that stays, and waits until another one succeeds.
    #[track_caller]
    fn spawn(&self, line: &str, ready: &str) -> Process {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        let log = self.node.directory("logs").unwrap().join(program);
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let process = self.command(program).args(words).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let start = Instant::now();
        while !self.succeeds(ready) {
            assert!(start.elapsed() < PATIENCE, "{line}: {}", fs::read_to_string(&log).unwrap());
            thread::sleep(Duration::from_millis(50));
        }
        Process(process)
    }
}

/// The firewalls, with what they need beside what is installed here. Fetched once.
fn unpacked() -> PathBuf {
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("this is no Debian");
    let dir = debian::cache().unwrap().join("firewalls").join(release);
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let unpacked = dir.join("unpacked");
    let archive = Archive::new(dir.join("apt"), release).updated();
    debian::whole(&unpacked, |to| archive.unpack_missing(&PACKAGES, to)).unwrap();
    unpacked
}

/// Ends the daemon, and removes what it made in the firewall, as `minicnid uninstall` does.
fn uninstall(node: &Node) {
    node.stop_daemon().unwrap();
    let errors = node.netns.run(firewall::remove).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The longest time without an answer on a conversation over UDP, while something is done and for a second more.
fn silence(client: &mut Client, change: impl FnOnce() + Send) -> Duration {
    let Client::Udp(socket) = client else { panic!("a conversation over UDP") };
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    thread::scope(|scope| {
        let change = scope.spawn(|| {
            change();
            thread::sleep(Duration::from_secs(1));
        });
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !change.is_finished() {
            let answered = client.exchange(b"x").is_ok();
            longest = longest.max(last.elapsed());
            if answered {
                last = Instant::now();
            }
        }
        change.join().unwrap();
        longest
    })
}
