//! A pod cannot bring a tag along.

use std::{fs, net::UdpSocket, process::Command, time::Duration};

use minicni_common::names::REDIRECTED_TAG;

use crate::{
    bench::{Family, patient, run_with},
    tagged,
    traffic::{shell, wire},
};

#[test]
fn whatever_enters_has_its_tag_taken_off_whether_it_is_noted_or_not() {
    run_with(Family::V4, "forged", patient(), |bench| {
        shell("mount -t tmpfs none /run && ip link set lo up");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let (stamp, judge) = (bench.pins.program("stamp"), bench.pins.program("judge"));
        tagged::pin_stamp(REDIRECTED_TAG, &stamp).unwrap();
        tagged::pin_judge(REDIRECTED_TAG, &judge).unwrap();
        let (a, b) = (bench.a, bench.b);
        let (client, server) = (wire(a, &bench.pins), wire(b, &bench.pins));
        // In front of `ingress` stands the forger, behind it who would not let its tag pass.
        shell(&format!(
            "tc filter add dev pod2 ingress prio 1 bpf direct-action object-pinned {}
             tc filter add dev pod2 ingress prio 20 bpf direct-action object-pinned {}",
            stamp.display(),
            judge.display()
        ));
        let ping = |arguments: &str| {
            let line = format!("ip netns exec pod2 ping -q -c 2 -i 0.1 -W 2 {arguments} {}", b.address);
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
        };
        // Neither TCP nor UDP; fragments; ARP, whose answer the pod has to send.
        ping("");
        ping("-s 4000");
        shell("ip neigh del 10.1.0.2 dev pod2");
        ping("");
        // Noted and promoted.
        let echo = server.run(|| UdpSocket::bind((b.address, 53)).unwrap()).unwrap();
        let socket = client.run(|| UdpSocket::bind((a.address, 1000)).unwrap()).unwrap();
        for socket in [&socket, &echo] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        for _ in 0..50 {
            socket.send_to(b"x", (b.address, 53)).unwrap();
            let (_, from) = echo.recv_from(&mut [0; 4]).unwrap();
            echo.send_to(b"x", from).unwrap();
            socket.recv_from(&mut [0; 4]).unwrap();
        }
        assert!(bench.counters().redirected > 70);
        assert_eq!(bench.counters().spoofed_source + bench.counters().spoofed_mac, 0);
    });
}
