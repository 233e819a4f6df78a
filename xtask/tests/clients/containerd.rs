//! containerd, by its `ctr`.

use std::{
    collections::HashSet,
    fs::{self, File},
    net::Ipv4Addr,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::lab::{
    clean,
    runtime::{Host, image},
};

use super::{
    HTTP, SERVES, address, assert_nothing_left,
    chain::{Chain, execute},
    conflist, httpd, lab, minicni, redirected, residue, results, wget,
};

/// The CRI is for a kubelet; nobody here speaks it.
const CONFIG: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

struct Containerd<'a> {
    host: &'a Host,
}

impl<'a> Containerd<'a> {
    fn new(host: &'a Host) -> Self {
        host.write("/tmp/containerd.toml", CONFIG).unwrap();
        let containerd = Self { host };
        containerd.start();
        containerd.ctr(&["image", "import", "--snapshotter", "native", "/tmp/image.tar"]);
        containerd
    }

    fn start(&self) {
        let log = File::create(self.host.path("/var/log/containerd.log")).unwrap();
        let start = "echo $$ >/tmp/containerd.pid; exec containerd --config /tmp/containerd.toml";
        let mut command = self.host.command("sh");
        command.args(["-c", start]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // Ends with the host.
        drop(command.spawn().unwrap());
        eventually("containerd answers", || {
            let mut ctr = self.host.command("ctr");
            ctr.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
    }

    #[track_caller]
    fn ctr(&self, arguments: &[&str]) -> String {
        self.host.run("ctr", arguments).unwrap()
    }

    /// Starts a web server in a container. While `ctr` lasts, it will do the DEL when the container ends; detached it
    /// ends with the ADD, and nobody will.
    fn serve(&self, name: &str, options: &[&str]) -> Child {
        let mut ctr = self.host.command("ctr");
        let cgroup = format!("{}/{name}", self.host.cgroup());
        ctr.args(["run", "--cni", "--snapshotter", "native", "--cgroup", &cgroup]).args(options);
        ctr.args([image::NAME, name, "sh", "-c", &httpd(name)]).stdin(Stdio::null()).spawn().unwrap()
    }

    /// As [`Containerd::serve`]; waits for the address.
    fn served(&self, name: &str) -> (Child, Ipv4Addr) {
        let ctr = self.serve(name, &["--rm"]);
        let result = format!("pods-default-{name}-eth0");
        eventually("ADD", || results(self.host).contains(&result));
        eventually("the container runs", || {
            let tasks = self.ctr(&["task", "list"]);
            tasks.lines().any(|line| line.starts_with(name) && line.contains("RUNNING"))
        });
        (ctr, self.address(name))
    }

    fn detached(&self, name: &str) -> Ipv4Addr {
        assert!(self.serve(name, &["--detach"]).wait().unwrap().success());
        self.address(name)
    }

    /// The address of a container, when its server answers.
    fn address(&self, name: &str) -> Ipv4Addr {
        let show = "ip -4 addr show dev eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'";
        address(&self.exec(name, &format!("{SERVES}; {show}")))
    }

    /// Runs a shell command in a container.
    #[track_caller]
    fn exec(&self, name: &str, command: &str) -> String {
        self.ctr(&["task", "exec", "--exec-id", "test", name, "sh", "-c", command])
    }

    /// The pid of a container, inside the host.
    fn pid(&self, name: &str) -> String {
        let tasks = self.ctr(&["task", "list"]);
        let task = tasks.lines().find(|line| line.starts_with(name)).unwrap();
        task.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn kill(&self, name: &str) {
        self.ctr(&["task", "kill", "--signal", "KILL", name]);
    }
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn containers_of_containerd_talk_to_each_other_on_the_fast_path_and_leave_nothing() {
    let (lab, host) = lab("containerd", 1);
    let node = &lab.nodes[0];
    let containerd = Containerd::new(&host);
    let (mut ctr_a, a) = containerd.served("a");
    for _ in 0..3 {
        let (mut ctr_b, b) = containerd.served("b");
        assert_eq!(containerd.exec("a", &wget("name", (b, HTTP))), "b");
        assert_eq!(containerd.exec("b", &wget("name", (a, HTTP))), "a");
        let count = redirected(node, || {
            containerd.exec("a", &format!("{} >/dev/null", wget("large", (b, HTTP))));
        });
        eprintln!("containerd: {count} packets of 30 MB were redirected");
        assert!(count > 400, "{count} packets were redirected");
        containerd.kill("b");
        ctr_b.wait().unwrap();
        assert_eq!(results(&host), ["pods-default-a-eth0"]);
    }
    containerd.kill("a");
    ctr_a.wait().unwrap();
    assert_nothing_left(node);
    assert_eq!(results(&host), Vec::<String>::new());
}

#[test]
fn containers_that_containerd_starts_and_ends_at_once_get_addresses_of_their_own_and_leave_nothing() {
    let (lab, host) = lab("containerd-many", 1);
    let containerd = Containerd::new(&host);
    // The first makes the chains of the firewall plugin, which does not expect another to do so at the same time.
    let (ctr, server) = containerd.served("server");
    let names: Vec<_> = (0..5).map(|number| format!("c{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| containerd.serve(name, &["--rm"])).collect();
    eventually("all run", || containerd.ctr(&["task", "list"]).matches("RUNNING").count() == 1 + names.len());
    let addresses: HashSet<_> = names.iter().map(|name| containerd.address(name)).chain([server]).collect();
    assert_eq!(addresses.len(), 1 + names.len());
    for name in &names {
        assert_eq!(containerd.exec(name, &wget("name", (server, HTTP))), "server");
    }
    containerd.kill("server");
    for name in &names {
        containerd.kill(name);
    }
    for mut ctr in many.into_iter().chain([ctr]) {
        ctr.wait().unwrap();
    }
    assert_nothing_left(&lab.nodes[0]);
    assert_eq!(results(&host), Vec::<String>::new());
}

#[test]
fn what_a_killed_containerd_leaves_is_removed_by_a_late_del_or_by_gc() {
    let (lab, host) = lab("containerd-kill", 1);
    let node = &lab.nodes[0];
    let containerd = Containerd::new(&host);
    for name in ["a", "b"] {
        containerd.detached(name);
    }
    let shims = ["a", "b"].map(|name| host.run("ps", &["-o", "ppid=", "-p", &containerd.pid(name)]).unwrap());
    let daemon = fs::read_to_string(host.path("/tmp/containerd.pid")).unwrap();
    let tasks = ["a", "b"].map(|name| containerd.pid(name));
    for pid in [&daemon, &shims[0], &shims[1], &tasks[0], &tasks[1]] {
        host.run("kill", &["-9", pid.trim()]).unwrap();
    }
    containerd.start();
    // What is left does not hold up who comes next.
    let (mut ctr, c) = containerd.served("c");
    assert_eq!(containerd.exec("c", &wget("name", (c, HTTP))), "c");
    containerd.kill("c");
    ctr.wait().unwrap();

    let left = |name: &str| {
        let cached = fs::read(host.path(&format!("/var/lib/cni/results/pods-default-{name}-eth0"))).unwrap();
        let cached: Value = serde_json::from_slice(&cached).unwrap();
        let address = cached["result"]["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned();
        (cached["result"].clone(), format!("lease of {address}"), address)
    };
    let late = |name: &str, result| Chain {
        node,
        conflist: conflist(node),
        runtime: json!({}),
        container_id: format!("default-{name}"),
        netns: "".into(),
        result: Some(result),
    };
    eprintln!("containerd: killed with two containers and started again; left: {} entries", residue(node).len());
    // DEL as libcni sends it from its cache.
    let (result, lease, address) = left("a");
    assert!(residue(node).contains(&lease));
    late("a", result).del().unwrap();
    assert!(residue(node).iter().all(|line| !line.contains(&address)));
    // GC. The other plugins know no GC, so their rules stay until the DEL that libcni sends before it.
    let (result, lease, _) = left("b");
    assert!(residue(node).contains(&lease));
    let mut gc = minicni(node);
    (gc["name"], gc["cniVersion"], gc["cni.dev/valid-attachments"]) = (json!("pods"), json!("1.1.0"), json!([]));
    execute(node, &[("CNI_COMMAND", "GC")], &gc).unwrap();
    let rest = residue(node);
    assert!(rest.iter().all(|line| line.starts_with("-A CNI-FORWARD")), "{rest:?}");
    late("b", result).del().unwrap();
    assert_nothing_left(node);
}

#[test]
fn what_a_killed_run_of_these_tests_left_ends_with_the_next() {
    let (mut lab, host) = lab("killed", 1);
    let containerd = Containerd::new(&host);
    containerd.detached("a");
    let namespace = host.run("readlink", &["/proc/self/ns/pid"]).unwrap();
    let processes = || {
        let all =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path().join("ns/pid")).ok());
        all.filter(|link| link.to_string_lossy() == namespace).count()
    };
    let cgroups = || {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let ours = |dir: std::path::PathBuf| dir.join(host.cgroup().trim_start_matches('/')).exists();
        hierarchies.chain(["/sys/fs/cgroup".into()]).filter(|dir| ours(dir.clone())).count()
    };
    lab.keep();
    drop(lab);
    // The first process, containerd and its shim. The container has a namespace of its own, but is in the cgroups, which
    // could not be removed before it ends.
    assert!(processes() == 3 && cgroups() > 0);
    clean("mniclient-killed").unwrap();
    assert_eq!((processes(), cgroups()), (0, 0));
}
