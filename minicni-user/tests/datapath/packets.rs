//! Frames, crafted with etherparse.

use std::net::IpAddr;

use etherparse::{LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use minicni_common::{FlowKey4, FlowKey6, tag};

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
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
    pub(crate) source_mac: [u8; 6],
    pub(crate) destination_mac: [u8; 6],
    /// TTL or hop limit.
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

    /// The hash of the frame's flow.
    pub(crate) fn hash(&self) -> u64 {
        self.hash_and_direction().0
    }

    /// The tag that `ingress` gives the frame when it notes it.
    pub(crate) fn tag(&self) -> u16 {
        let (hash, direction) = self.hash_and_direction();
        tag(hash, direction)
    }

    fn hash_and_direction(&self) -> (u64, u32) {
        let protocol = if self.tcp.is_some() { 6 } else { 17 };
        let ((source, source_port), (destination, destination_port)) = (self.source, self.destination);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let word = |address: std::net::Ipv4Addr| u32::from_ne_bytes(address.octets());
                let (from, to) = ((word(source), source_port), (word(destination), destination_port));
                (FlowKey4::hash(from, to, protocol), FlowKey4::new(from, to, protocol).1)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let word = |address: std::net::Ipv6Addr| u128::from_ne_bytes(address.octets());
                let (from, to) = ((word(source), source_port), (word(destination), destination_port));
                (FlowKey6::hash(from, to, protocol), FlowKey6::new(from, to, protocol).1)
            }
            _ => panic!("from {source} to {destination}"),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.source_mac, self.destination_mac);
        let ip = match (self.source.0, self.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), self.ttl)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), self.ttl)
            }
            (source, destination) => panic!("from {source} to {destination}"),
        };
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

/// Asserts that a frame is well formed, an IPv4 header's checksum included, and gives its MACs (destination, source) and
/// its TTL or hop limit.
#[track_caller]
pub(crate) fn inspect(frame: &[u8]) -> ([u8; 6], [u8; 6], u8) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Udp(_) | TransportSlice::Tcp(_))));
    let Some(LinkSlice::Ethernet2(ethernet)) = sliced.link else { panic!("not Ethernet") };
    let ttl = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            header.time_to_live
        }
        NetSlice::Ipv6(ip) => ip.header().hop_limit(),
        NetSlice::Arp(_) => panic!("not IP"),
    };
    (ethernet.destination(), ethernet.source(), ttl)
}
