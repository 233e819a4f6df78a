//! Names, asked for by busybox in a pod through the address that kubelet wrote into its `resolv.conf`.
//!
//! Debian has no `CoreDNS`. A server that knows one name stands in for it, in the namespace of a pod of the other node: the
//! network between them is what is looked at.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use serde_json::json;

use super::super::bed::{Bed, wait};
use crate::lab::kubernetes::cluster::DNS_ADDRESS;

const NAME: &str = "web.default.svc.cluster.local";
const ANSWER: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);

pub(super) fn look(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let server = &four[1][1];
    let address = server.address(false)?;
    let port = json!([{ "name": "dns", "port": 53, "protocol": "UDP" }]);
    for object in [
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kube-dns", "namespace": "kube-system" },
                "spec": { "clusterIP": DNS_ADDRESS, "ports": port } }),
        json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "kube-dns", "namespace": "kube-system" },
                "subsets": [{ "addresses": [{ "ip": address }], "ports": port }] }),
    ] {
        bed.kubectl().apply(&object.to_string())?;
    }
    let netns = server.netns(bed.machine(&server.node)?)?;
    let socket = netns.run(|| UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53)))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&socket, &end));
        let asked = ask(bed, [&four[0][0], &four[1][0]]);
        end.store(true, Relaxed);
        asked
    })
}

fn ask(bed: &Bed, pods: [&super::super::pods::Pod; 2]) -> Result<String> {
    const TIMES: usize = 5;
    for pod in pods {
        // kube-proxy needs a moment.
        wait("a name is resolved", || pod.exec(bed.kubectl(), &["nslookup", NAME]).map(Some))?;
        for _ in 0..TIMES {
            let text = pod.exec(bed.kubectl(), &["nslookup", NAME])?;
            if !text.contains(&ANSWER.to_string()) {
                bail!("nslookup in {} says {text:?}", pod.name);
            }
        }
    }
    let all = pods.len() * TIMES;
    Ok(format!("{all} of {all} lookups, from pods of both nodes"))
}

fn serve(socket: &UdpSocket, end: &AtomicBool) {
    let mut buffer = [0; 512];
    while !end.load(Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&buffer[..length]) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The answer to one question, as RFC 1035 has it; none where it is no question.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut labels = Vec::new();
    let mut rest = query.get(HEADER..)?;
    loop {
        let (&length, after) = rest.split_first()?;
        if length == 0 {
            rest = after;
            break;
        }
        let (label, after) = after.split_at_checked(length.into())?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = after;
    }
    let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let question = query.get(HEADER..query.len() - rest.len() + 4)?;
    let known = labels.join(".").eq_ignore_ascii_case(NAME);
    let answers = u8::from(known && kind == 1);
    // An answer, by the one who knows; a name that is not known does not exist.
    let mut answer = vec![query[0], query[1], 0x84, if known { 0 } else { 3 }, 0, 1, 0, answers, 0, 0, 0, 0];
    answer.extend_from_slice(question);
    if answers == 1 {
        // The name of the question, A, IN, for 1 s, 4 bytes.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend_from_slice(&ANSWER.octets());
    }
    Some(answer)
}
