//! firewalld, whose table of nftables rejects what no zone accepts. No other table can overrule that.

use std::net::SocketAddr;

use super::{
    super::{OUTSIDE, PORT, REACTION, eventually, nodes, outside, problems, reacts, run, seen, talk},
    Machine, uninstall,
};

/// A system bus on which everybody may do everything.
const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>"#;

#[test]
fn firewalld_is_named_where_it_rejects_and_what_the_manual_says_makes_pods_talk() {
    let mut lab = nodes("firewalld", 2);
    let outside = outside(&lab);
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, n, r) = (node.pod("a").unwrap(), node.pod("n").unwrap(), lab.nodes[1].pod("r").unwrap());
    let talk = || talk(&a, [&n, &r]);
    assert!(talk(), "before firewalld came");
    let machine = Machine::start(node, "nft");
    machine.host.write("/tmp/bus.conf", BUS).unwrap();
    machine.run("mkdir -p /run/dbus");
    let _bus = machine.spawn("dbus-daemon --config-file=/tmp/bus.conf --nofork", "test -S /run/dbus/system_bus_socket");
    let _firewalld = machine.spawn("firewalld --nofork --nopid", "firewall-cmd --state");

    assert!(!talk(), "firewalld rejects");
    let told = || problems(&lab);
    assert!(told().contains("ForwardBlocked"), "{}", told());
    let chain = "chain inet firewalld filter_FORWARD drops what none of its rules accepts";
    assert!(told().contains(chain), "{}", told());

    let trust = |prefixes: &[&str]| {
        for prefix in prefixes {
            machine.run(&format!("firewall-cmd --permanent --zone=trusted --add-source={prefix}"));
        }
        machine.run("firewall-cmd --reload");
    };
    // With its own pods trusted the node can dial others, and cannot be dialled by them.
    trust(&["10.244.1.0/24", "fd44:0:0:1::/64"]);
    reacts("pods that are trusted talk", &a, [&n, &r]);
    let to = SocketAddr::new(a.addresses()[0], PORT);
    assert_eq!(seen(&r.netns, &a.netns, to), None);
    assert!(told().contains("--add-source=10.244.2.0/24"), "{}", told());
    trust(&["10.244.0.0/16", "fd44::/48"]);
    reacts("pods talk after the prefixes of all were trusted", &r, [&a, &n]);
    // So with the other node itself.
    let other = &lab.nodes[1];
    assert_eq!(seen(&other.netns, &a.netns, to), None);
    assert!(told().contains("--add-source=192.168.77.2/32"), "{}", told());
    trust(&["192.168.77.0/24", "fd77:77::/64"]);
    assert!(seen(&other.netns, &a.netns, to).is_some());
    eventually(REACTION, "nothing is told any more", || !told().contains("Forward"));
    let door = SocketAddr::new(OUTSIDE[0].parse().unwrap(), PORT);
    assert!(seen(&a.netns, &outside, door).is_some(), "pods reach the world");

    let firewallds = || run(&node.netns, "nft --stateless list table inet firewalld");
    let before = firewallds();
    uninstall(node);
    assert_eq!(firewallds(), before);
    assert!(talk(), "without the daemon");
}
