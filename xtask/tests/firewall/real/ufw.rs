//! ufw, whose default is to drop what is forwarded.

use std::{net::SocketAddr, time::Duration};

use xtask::lab::traffic::{Client, Protocol, Server};

use super::{
    super::{PORT, REACTION, eventually, nodes, problems, reacts, saved, talk, without_ours},
    Machine, silence, uninstall,
};

/// What the package does where it is installed.
const SETUP: &str = "cp /usr/share/ufw/iptables/*.rules /etc/ufw/ && cp /usr/share/ufw/ufw.conf /etc/ufw/";
/// How long a reload, which opens and closes everything, may hold up a conversation.
const HELD_UP: Duration = Duration::from_secs(1);

#[test]
fn pods_talk_beside_ufw_while_it_comes_and_reloads_and_goes() {
    let mut lab = nodes("ufw", 2);
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, n, r) = (node.pod("a").unwrap(), node.pod("n").unwrap(), lab.nodes[1].pod("r").unwrap());
    let talk = || talk(&a, [&n, &r]);
    assert!(talk(), "before ufw came");
    let machine = Machine::start(node, "nft");
    machine.sh(SETUP);
    machine.run("ufw --force enable");
    let all = saved(node, "nft");
    assert_eq!(all.matches(":FORWARD DROP").count(), 2, "{all}");
    reacts("pods talk after ufw came", &a, [&n, &r]);
    assert!(!problems(&lab).contains("Forward"), "{}", problems(&lab));

    let server = Server::start(&r.netns, PORT).unwrap();
    let mut clients = r.addresses().into_iter().map(|ip| {
        let mut client = Client::connect(&a.netns, Protocol::Udp, SocketAddr::new(ip, PORT)).unwrap();
        client.measure(100).unwrap();
        client
    });
    let silence = silence(&mut clients.next().unwrap(), || drop(machine.run("ufw reload")));
    eprintln!("while ufw reloaded, there was no answer for {silence:.1?}");
    assert!(silence < HELD_UP, "{silence:?}");
    drop(server);
    reacts("pods talk after a reload", &a, [&n, &r]);
    let has_ours = || saved(node, "nft").matches(":MINICNI-FORWARD").count();
    eventually(REACTION, "our rules are there, for both families", || has_ours() == 2);
    let with = saved(node, "nft");
    uninstall(node);
    assert_eq!(saved(node, "nft"), without_ours(&with), "what ufw made is what is left");
    assert!(!talk(), "it is ufw that drops");

    node.start_daemon(&lab.nodes_file()).unwrap();
    reacts("pods talk after the daemon came back", &a, [&n, &r]);
    machine.run("ufw disable");
    assert!(talk(), "after ufw went");
    eventually(REACTION, "nothing of ours is left in iptables", || has_ours() == 0);
    assert!(talk(), "after ufw went");
}
