//! VXLAN devices whose packets' destinations the routes name.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo as InfoAttribute, LinkMessage},
};

use super::Request;

/// What tells one VXLAN device from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// The UDP port on which it listens and to which it sends, in host byte order.
    pub port: u16,
    /// Whether routes name the VXLAN network and the destination of each packet (`external`), for both address families.
    pub external: bool,
    /// Whether it carries IP packets without Ethernet header, in the format of VXLAN-GPE.
    pub gpe: bool,
}

impl Vxlan {
    /// A device for routes of lightweight tunnels. It has no Ethernet addresses, so that no neighbour has to be known: with
    /// an Ethernet header the kernel would take only what bears the device's own address, and nothing that comes from that
    /// address, so that every node would have to know the one of every other: `vxlan_set_mac()` in
    /// <https://github.com/torvalds/linux/blob/v6.12/drivers/net/vxlan/vxlan_core.c>.
    pub fn routed(port: u16) -> Self {
        Self { port, external: true, gpe: true }
    }

    pub(super) fn parse(attributes: &[InfoVxlan]) -> Self {
        let mut vxlan = Self { port: 0, external: false, gpe: false };
        for attribute in attributes {
            match attribute {
                InfoVxlan::Port(port) => vxlan.port = *port,
                InfoVxlan::CollectMetadata(external) => vxlan.external = *external,
                InfoVxlan::Gpe => vxlan.gpe = true,
                _ => {}
            }
        }
        vxlan
    }

    fn attributes(self) -> Vec<InfoVxlan> {
        let mut attributes = vec![InfoVxlan::Port(self.port), InfoVxlan::Learning(false)];
        if self.external {
            attributes.push(InfoVxlan::CollectMetadata(true));
        }
        if self.gpe {
            attributes.push(InfoVxlan::Gpe);
        }
        attributes
    }
}

/// Makes a VXLAN device, which is down. The kernel answers `EEXIST` when the name is taken, or when another `external` device
/// has the port.
pub fn vxlan(name: &str, config: Vxlan) -> Request<'static> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            InfoAttribute::Kind(InfoKind::Vxlan),
            InfoAttribute::Data(InfoData::Vxlan(config.attributes())),
        ]),
    ];
    let operation = format!("create vxlan device {name} on port {}", config.port);
    Request::new(operation, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}
