//! Docker, whose `dockerd` sets the policy of FORWARD to DROP where it is the one that switches forwarding on.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use minicni::link::Netns;
use xtask::lab::{Node, runtime::image};

use super::{
    super::{DOOR, eventually, nodes, outside, reacts, run, saved, settle, talk, without_ours},
    Machine, PATIENCE, Process, uninstall,
};

const PUBLISHED: u16 = 8081;

struct Docker<'a> {
    machine: &'a Machine<'a>,
    process: Process,
}

impl<'a> Docker<'a> {
    /// Starts `dockerd`, with rules for both address families.
    fn start(machine: &'a Machine<'a>) -> Self {
        let dockerd = format!(
            "dockerd --storage-driver=vfs --cgroup-parent={} --experimental --ip6tables --ipv6 --fixed-cidr-v6=fd77::/64",
            machine.host.cgroup()
        );
        Self { machine, process: machine.spawn(&dockerd, "docker version") }
    }

    fn end(mut self) {
        self.machine.sh("kill $(cat /run/docker.pid)");
        self.process.0.wait().unwrap();
    }

    /// Starts a container with a web server behind a port of the node.
    fn publish(&self) {
        image::write(&self.machine.host.path("/tmp/image.tar")).unwrap();
        self.machine.run("docker load --quiet --input /tmp/image.tar");
        let server = "echo hello >/www/name; exec httpd -f -p 80 -h /www";
        let mut docker = self.machine.command("docker");
        docker.args(["run", "--detach", "--restart=always", "--stop-signal=SIGKILL"]);
        docker.args([&format!("--publish={PUBLISHED}:80"), image::NAME, "sh", "-c", server]);
        xtask::command::output(&mut docker).unwrap();
    }
}

/// All rules of a node, without counters.
fn rules(node: &Node) -> [String; 3] {
    [saved(node, "nft"), saved(node, "legacy"), run(&node.netns, "nft --stateless list ruleset")]
}

/// Whether the container answers at the node's address.
fn answers(client: &Netns, node: IpAddr) -> bool {
    let get = || {
        let to = SocketAddr::new(node, PUBLISHED);
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /name HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    client.run(get).unwrap().is_ok_and(|answer| answer.ends_with("\r\nhello\n"))
}

#[test]
fn pods_talk_beside_docker_and_its_rules_and_published_ports_stay() {
    for backend in ["nft", "legacy"] {
        let mut lab = nodes(&format!("docker-{backend}"), 2);
        let outside = outside(&lab);
        lab.start_daemons().unwrap();
        let node = &lab.nodes[0];
        let (a, n, r) = (node.pod("a").unwrap(), node.pod("n").unwrap(), lab.nodes[1].pod("r").unwrap());
        let talk = || talk(&a, [&n, &r]);
        let published = || DOOR.iter().all(|door| answers(&outside, door.parse().unwrap()));
        assert!(talk(), "before Docker came");

        // As after a boot at which Docker is the first.
        uninstall(node);
        run(&node.netns, "sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
        let machine = Machine::start(node, backend);
        let docker = Docker::start(&machine);
        docker.publish();
        let dockers = rules(node);
        let index = usize::from(backend == "legacy");
        assert_eq!(dockers[index].matches(":FORWARD DROP").count(), 2, "{}", dockers[index]);
        assert!(!talk(), "{backend}: it is Docker that drops");
        let nodes = lab.nodes_file();
        node.start_daemon(&nodes).unwrap();
        reacts("pods talk after Docker came", &a, [&n, &r]);
        eventually(PATIENCE, "the container answers", published);
        assert_eq!(without_ours(&saved(node, backend)), dockers[index]);
        uninstall(node);
        assert_eq!(rules(node), dockers, "what Docker made is what is left");
        assert!(published());

        node.start_daemon(&nodes).unwrap();
        settle();
        docker.end();
        let docker = Docker::start(&machine);
        reacts("pods talk after Docker was restarted", &a, [&n, &r]);
        eventually(PATIENCE, "the container answers again", published);
        assert!(answers(&a.netns, DOOR[0].parse().unwrap()), "a pod is answered, too");
        docker.end();
        assert!(talk(), "after Docker went");
    }
}
