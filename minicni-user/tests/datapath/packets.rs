//! Frames, crafted with etherparse.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use minicni_common::FlowKey4;

use crate::bench::Pod;

/// TCP flags by name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Tcp {
    #[default]
    Ack,
    Syn,
    Fin,
    Rst,
}

/// A TCP or UDP packet from one pod to another, as it enters the host.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) source: ([u8; 4], u16),
    pub(crate) destination: ([u8; 4], u16),
    pub(crate) source_mac: [u8; 6],
    pub(crate) destination_mac: [u8; 6],
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) tcp: Option<Tcp>,
}

impl Frame {
    pub(crate) fn udp(from: Pod, from_port: u16, to: Pod, to_port: u16) -> Self {
        Self {
            source: (from.address, from_port),
            destination: (to.address, to_port),
            source_mac: from.mac,
            destination_mac: from.host_mac,
            ttl: 64,
            payload: b"x".to_vec(),
            tcp: None,
        }
    }

    pub(crate) fn tcp(from: Pod, from_port: u16, to: Pod, to_port: u16) -> Self {
        Self { tcp: Some(Tcp::Ack), ..Self::udp(from, from_port, to, to_port) }
    }

    pub(crate) fn flags(&self, flags: Tcp) -> Self {
        Self { tcp: Some(flags), ..self.clone() }
    }

    /// The frame as the host's stack forwards it.
    pub(crate) fn routed(&self, destination_mac: [u8; 6], source_mac: [u8; 6]) -> Self {
        Self { destination_mac, source_mac, ttl: self.ttl - 1, ..self.clone() }
    }

    /// The tag that `ingress` gives the frame when it notes it.
    pub(crate) fn tag(&self) -> u16 {
        let (source, destination) = (self.source, self.destination);
        let end = |(address, port): ([u8; 4], u16)| (u32::from_ne_bytes(address), port);
        let swapped = end(source) > end(destination);
        let (first, second) = if swapped { (destination, source) } else { (source, destination) };
        let protocol = if self.tcp.is_some() { 6 } else { 17 };
        let key = FlowKey4 { addresses: [first.0, second.0], ports: [first.1, second.1], protocol };
        key.tag(u32::from(swapped))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2(self.source_mac, self.destination_mac).ipv4(
            self.source.0,
            self.destination.0,
            self.ttl,
        );
        let mut bytes = Vec::new();
        match self.tcp {
            None => ip.udp(self.source.1, self.destination.1).write(&mut bytes, &self.payload).unwrap(),
            Some(flags) => {
                let tcp = ip.tcp(self.source.1, self.destination.1, 1, 1000);
                let tcp = match flags {
                    Tcp::Ack => tcp.ack(1),
                    Tcp::Syn => tcp.syn(),
                    Tcp::Fin => tcp.ack(1).fin(),
                    Tcp::Rst => tcp.rst(),
                };
                tcp.write(&mut bytes, &self.payload).unwrap();
            }
        }
        bytes
    }
}

/// Asserts that a frame is well formed, IP header checksum included, and gives its MACs (destination, source) and TTL.
#[track_caller]
pub(crate) fn inspect(frame: &[u8]) -> ([u8; 6], [u8; 6], u8) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Udp(_) | TransportSlice::Tcp(_))));
    let (etherparse::LinkSlice::Ethernet2(ethernet), etherparse::NetSlice::Ipv4(ip)) =
        (sliced.link.unwrap(), sliced.net.unwrap())
    else {
        panic!("not IPv4 over Ethernet");
    };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    (ethernet.destination(), ethernet.source(), header.time_to_live)
}
