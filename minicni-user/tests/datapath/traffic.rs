//! Real packets through the programs: the kernel's own stacks at both ends and between them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use minicni::{
    datapath::Pins,
    link::{MacAddress, Netns},
};
use minicni_common::names;

use crate::bench::{Pod, patient, run};

pub(crate) fn shell(commands: &str) {
    let output = Command::new("sh").args(["-ec", commands]).output().unwrap();
    assert!(output.status.success(), "{commands}: {output:?}");
}

/// Gives a pod a namespace of its own, addresses and routes, and attaches the programs to the host's end of its veth pair.
pub(crate) fn wire(pod: Pod, pins: &Pins) -> Netns {
    let Pod { ipv4, ipv6, .. } = pod;
    let number = ipv4.octets()[3];
    let (host, peer, netns) = (format!("pod{number}"), format!("peer{number}"), format!("pod{number}"));
    let (mac, host_mac) = (MacAddress(pod.mac), MacAddress(pod.host_mac));
    let (ingress, egress) = (pins.program(names::INGRESS), pins.program(names::EGRESS));
    shell(&format!(
        "ip netns add {netns}
         ip link set {peer} netns {netns}
         ip -n {netns} addr add {ipv4}/32 dev {peer}
         ip -n {netns} addr add {ipv6}/128 dev {peer}
         tc qdisc add dev {host} clsact
         tc filter add dev {host} ingress prio 10 bpf direct-action object-pinned {ingress}
         tc filter add dev {host} egress prio 10 bpf direct-action object-pinned {egress}
         ip link set {host} up
         ip -n {netns} link set {peer} up
         ip route add {ipv4} dev {host}
         ip route add {ipv6} dev {host}
         ip neigh add {ipv4} lladdr {mac} dev {host}
         ip neigh add {ipv6} lladdr {mac} dev {host}
         ip -n {netns} neigh add 169.254.1.1 lladdr {host_mac} dev {peer}
         ip -n {netns} neigh add fe80::1 lladdr {host_mac} dev {peer}
         ip -n {netns} route add default via 169.254.1.1 dev {peer} onlink
         ip -n {netns} route add default via fe80::1 dev {peer} onlink",
        ingress = ingress.display(),
        egress = egress.display(),
    ));
    Netns::open(format!("/run/netns/{netns}")).unwrap()
}

#[test]
fn real_conversations_are_redirected_and_nothing_that_a_plain_pod_sends_is_dropped() {
    run("traffic", patient(), |bench| {
        shell("mount -t tmpfs none /run && ip link set lo up");
        for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{sysctl}"), "1").unwrap();
        }
        let (a, b) = (bench.a, bench.b);
        let (client, server) = (wire(a, &bench.pins), wire(b, &bench.pins));
        // The addresses are tentative at first, and duplicate address detection is some of what must not be dropped.
        thread::sleep(Duration::from_secs(3));
        assert_eq!(bench.counters().spoofed_source, 0);

        let (echo, listener) = server
            .run(|| (UdpSocket::bind((b.address, 53)).unwrap(), TcpListener::bind((b.address, 80)).unwrap()))
            .unwrap();
        let socket = client.run(|| UdpSocket::bind((a.address, 1000)).unwrap()).unwrap();
        for socket in [&socket, &echo] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        let before = bench.counters();
        let mut buffer = [0; 4_000];
        // Of 200 exchanges 16 packets prove the flow, and the fragmented ones stay in the stack.
        for round in 0..200_u32 {
            let request = vec![7; if round % 10 == 9 { 3_000 } else { 100 }];
            socket.send_to(&request, (b.address, 53)).unwrap();
            let (length, from) = echo.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&request[..], (a.address, 1000).into()));
            echo.send_to(&buffer[..length], from).unwrap();
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((length, from), (request.len(), (b.address, 53).into()));
        }
        let redirected = bench.counters().redirected - before.redirected;
        assert!((300..400).contains(&redirected), "{redirected} UDP packets were redirected");

        let sent: Vec<u8> = (0..8_000_000_u32).map(|index| index.to_le_bytes()[1]).collect();
        let received = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                received
            });
            let mut stream = client.run(|| TcpStream::connect((b.address, 80)).unwrap()).unwrap();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            reader.join().unwrap()
        });
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        let after = bench.counters();
        let count = after.redirected - before.redirected - redirected;
        assert!(count > 100, "{count} TCP packets were redirected");
        assert_eq!((after.spoofed_source, after.malformed, after.promoted), (0, 0, 2));
    });
}
