//! Devices: veth pairs and what the kernel says about any of them.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
        LinkFlags, LinkInfo as InfoAttribute, LinkLayerType, LinkMessage,
    },
};
use nix::errno::Errno;

use super::{LinkError, MacAddress, Request, Socket, Vxlan};

/// `IFNAMSIZ` without the terminating zero.
const MAX_NAME: usize = 15;
/// `IFALIASZ` without the terminating zero.
const MAX_ALIAS: usize = 255;

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The device's name in its namespace, at most 15 bytes.
    pub name: &'a str,
    /// The index to give it; `None` lets the kernel choose. The kernel takes the peer's only together with the host end's, see
    /// `veth_newlink()`: <https://github.com/torvalds/linux/blob/v6.12/drivers/net/veth.c>
    pub ifindex: Option<u32>,
    /// Its address. Always set, so that neither udev nor networkd chooses one.
    pub mac: MacAddress,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl VethEnd<'_> {
    /// The kernel's own rule, `dev_valid_name()`: <https://github.com/torvalds/linux/blob/v6.12/net/core/dev.c>
    fn check(&self) -> Result<(), LinkError> {
        let forbidden = |character: char| matches!(character, '/' | ':' | '\0') || character.is_ascii_whitespace();
        if self.name.is_empty()
            || self.name.len() > MAX_NAME
            || matches!(self.name, "." | "..")
            || self.name.contains(forbidden)
        {
            return Err(LinkError::Invalid {
                field: "device name",
                value: self.name.to_owned(),
                reason: "it must have 1 to 15 bytes, without '/', ':' and blanks",
            });
        }
        Ok(())
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.ifindex.unwrap_or(0);
        message.attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Address(self.mac.0.to_vec()),
        ];
        message
    }
}

/// Makes a veth pair: `host` in the socket's namespace and up, `peer` born inside `peer_netns` under its final name and down
/// (the kernel answers `ENOTCONN` to a peer that is to be up before it has its other end).
///
/// The kernel answers `EEXIST` when the host end's name or index is taken. Send it alone and go on only when it succeeded: a
/// batch continues after a failure, and what follows would then be done to whatever else has this name or index.
pub fn veth<'fd>(
    host: &VethEnd<'_>,
    peer: &VethEnd<'_>,
    peer_netns: BorrowedFd<'fd>,
) -> Result<Request<'fd>, LinkError> {
    host.check()?;
    peer.check()?;
    let mut inner = peer.message();
    inner.attributes.push(LinkAttribute::NetNsFd(peer_netns.as_raw_fd()));
    let mut message = host.message();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        InfoAttribute::Kind(InfoKind::Veth),
        InfoAttribute::Data(InfoData::Veth(InfoVeth::Peer(inner))),
    ]));
    let operation = format!("create veth {} with peer {}", host.name, peer.name);
    Ok(Request::new(operation, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL))
}

/// Describes a device to people (`ip link` shows it); cut to the 255 bytes the kernel keeps. The kernel ignores an alias in
/// the request that creates a device.
pub fn alias(ifindex: u32, text: &str) -> Request<'static> {
    let text = text.get(..text.floor_char_boundary(MAX_ALIAS)).unwrap_or_default();
    let attribute = LinkAttribute::IfAlias(text.to_owned());
    set(format!("set alias {text:?} on dev {ifindex}"), ifindex, attribute)
}

/// Keeps the kernel from giving a device an IPv6 link-local address when it comes up; without effect, and no error, where
/// there is no IPv6. The kernel does not take this in the request that creates a device either.
pub fn without_link_local(ifindex: u32) -> Request<'static> {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    set(format!("disable IPv6 link-local addresses on dev {ifindex}"), ifindex, attribute).tolerate(Errno::EAFNOSUPPORT)
}

fn set(operation: String, ifindex: u32, attribute: LinkAttribute) -> Request<'static> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes.push(attribute);
    Request::new(operation, RouteNetlinkMessage::SetLink(message), 0)
}

/// Sets a device's MTU in bytes.
pub fn set_mtu(ifindex: u32, mtu: u32) -> Request<'static> {
    set(format!("set MTU {mtu} on dev {ifindex}"), ifindex, LinkAttribute::Mtu(mtu))
}

/// Sets a device up.
pub fn link_up(ifindex: u32) -> Request<'static> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::new(format!("set dev {ifindex} up"), RouteNetlinkMessage::SetLink(message), 0)
}

/// Deletes a device, and a veth's other end with it. That it is gone already is success.
pub fn delete_link(ifindex: u32) -> Request<'static> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    Request::new(format!("delete dev {ifindex}"), RouteNetlinkMessage::DelLink(message), 0).tolerate(Errno::ENODEV)
}

/// Puts a device into a numbered group, see [`delete_group`].
pub fn set_group(ifindex: u32, group: u32) -> Request<'static> {
    set(format!("put dev {ifindex} into group {group}"), ifindex, LinkAttribute::Group(group)).tolerate(Errno::ENODEV)
}

/// Deletes every device of a group at once. The kernel waits for its readers once for all of them, which is what the
/// deletion of a single device takes its time for. That the group is empty is success.
pub fn delete_group(group: u32) -> Request<'static> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request::new(format!("delete the devices of group {group}"), RouteNetlinkMessage::DelLink(message), 0)
        .tolerate(Errno::ENODEV)
}

/// What the kernel says about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The driver's name for virtual devices: `veth`, `vxlan`, `bridge`, …
    pub kind: Option<String>,
    /// Its Ethernet address; `None` for devices without one.
    pub mac: Option<MacAddress>,
    /// Whether its packets have an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// What [`alias`] set.
    pub alias: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// The index of a veth's other end, or of the device below a VLAN and its like.
    pub peer_ifindex: Option<u32>,
    /// The namespace of that other end, by the number it has in this one; `None` when it is this one.
    pub peer_netns_id: Option<i32>,
    /// What it is as a VXLAN device; `None` for others.
    pub vxlan: Option<Vxlan>,
}

impl LinkInfo {
    fn new(message: LinkMessage) -> Self {
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            kind: None,
            mac: None,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            mtu: 0,
            alias: None,
            up: message.header.flags.contains(LinkFlags::Up),
            peer_ifindex: None,
            peer_netns_id: None,
            vxlan: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = MacAddress::from_slice(&bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Link(ifindex) => link.peer_ifindex = Some(ifindex),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns_id = Some(id),
                LinkAttribute::LinkInfo(attributes) => {
                    for attribute in attributes {
                        match attribute {
                            InfoAttribute::Kind(kind) => link.kind = Some(kind.to_string()),
                            InfoAttribute::Data(InfoData::Vxlan(attributes)) => {
                                link.vxlan = Some(Vxlan::parse(&attributes));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

impl Socket {
    /// All devices of the namespace.
    pub fn links(&mut self) -> Result<Vec<LinkInfo>, LinkError> {
        let request =
            Request::new("list devices".to_owned(), RouteNetlinkMessage::GetLink(without_statistics()), NLM_F_DUMP);
        Ok(self.dump(request)?.into_iter().filter_map(link_info).collect())
    }

    /// The device of this name; `None` if there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<LinkInfo>, LinkError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Ok(None);
        }
        let mut message = without_statistics();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(format!("look up dev {name}"), message)
    }

    /// The device of this index; `None` if there is none.
    pub fn link_by_index(&mut self, ifindex: u32) -> Result<Option<LinkInfo>, LinkError> {
        if ifindex == 0 {
            return Ok(None);
        }
        let mut message = without_statistics();
        message.header.index = ifindex;
        self.link(format!("look up dev {ifindex}"), message)
    }

    fn link(&mut self, operation: String, message: LinkMessage) -> Result<Option<LinkInfo>, LinkError> {
        let request = Request::new(operation, RouteNetlinkMessage::GetLink(message), 0).tolerate(Errno::ENODEV);
        Ok(self.get(request)?.and_then(link_info))
    }
}

fn without_statistics() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn link_info(message: RouteNetlinkMessage) -> Option<LinkInfo> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(LinkInfo::new(message)),
        _ => None,
    }
}
