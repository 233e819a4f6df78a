//! Elements that come and go, written straight by netlink: `nft` reads the sets of all nodes before it writes one.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
};

use ipnet::IpNet;
use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
    },
};

use super::{
    FirewallError,
    contents::{TABLE, listed},
};

/// More prefixes than this are left to `nft`: its own reading is little beside them, and a message has an end.
pub(super) const MOST: usize = 512;

/// The name of the table in its family, as the kernel takes it.
const NAME: &[u8] = b"minicni\0";

// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nfnetlink.h>
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
const AF_UNSPEC: u8 = 0;
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter.h>
const NFPROTO_INET: u8 = 1;
// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_tables.h>
const NFT_MSG_NEWSETELEM: u16 = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, 12]);
const NFT_MSG_DELSETELEM: u16 = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, 14]);
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_DATA_VALUE: u16 = 1;

/// A note of `nft`'s to itself: this interval is open, so what follows is not missing. Type, length and value are those of
/// `NFTNL_UDATA_SET_ELEM_FLAGS` and `SET_ELEM_F_INTERVAL_OPEN`:
/// <https://git.netfilter.org/libnftnl/tree/include/libnftnl/udata.h>
const OPEN: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [1, 4, a, b, c, d]
};

/// What one set loses and gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Change {
    pub(super) set: &'static str,
    pub(super) removed: BTreeSet<IpNet>,
    pub(super) added: BTreeSet<IpNet>,
}

/// How many prefixes come and go.
pub(super) fn count(changes: &[Change]) -> usize {
    changes.iter().map(|change| change.removed.len() + change.added.len()).sum()
}

/// The changes for `nft`: first what goes, as something may come in its place.
pub(super) fn script(changes: &[Change]) -> String {
    let mut script = String::new();
    for (verb, set, elements) in steps(changes) {
        let verb = if verb == NFT_MSG_DELSETELEM { "delete" } else { "add" };
        let _ = writeln!(script, "{verb} element {TABLE} {set} {{ {} }}", listed(elements));
    }
    script
}

/// Makes the changes in the network namespace of the calling thread: all, or none where the kernel refuses one.
pub(super) fn write(changes: &[Change]) -> Result<(), FirewallError> {
    let failed = |call| move |errno| FirewallError::Netlink { call, errno };
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
        .map_err(failed("socket"))?;
    // A connected socket takes answers from the kernel only.
    connect(kernel.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed("connect"))?;
    let batch = batch(changes);
    send(kernel.as_raw_fd(), &batch, MsgFlags::empty()).map_err(failed("send"))?;
    let mut answer = [0; 64];
    for _ in steps(changes) {
        // The kernel has answered before `send` returns, so nothing is waited for:
        // https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nfnetlink.c#L313
        let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).map_err(failed("recv"))?;
        match answer.get(..length).and_then(code) {
            Some(0) => {}
            Some(code) => return Err(FirewallError::Elements(Errno::from_raw(code.saturating_neg()))),
            None => return Err(failed("recv")(Errno::EBADMSG)),
        }
    }
    Ok(())
}

/// The messages that make the changes, and the elements of each.
fn steps(changes: &[Change]) -> impl Iterator<Item = (u16, &'static str, &BTreeSet<IpNet>)> {
    let removals = changes.iter().map(|change| (NFT_MSG_DELSETELEM, change.set, &change.removed));
    let additions = changes.iter().map(|change| (NFT_MSG_NEWSETELEM, change.set, &change.added));
    removals.chain(additions).filter(|(.., elements)| !elements.is_empty())
}

/// The code of an `NLMSG_ERROR`, which follows the header: 0 for success.
fn code(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}

/// All messages of the transaction. Those between the first and the last ask for an answer each.
fn batch(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, NFNL_MSG_BATCH_BEGIN, 0, [AF_UNSPEC, 0, 0, NFNL_SUBSYS_NFTABLES], |_| {});
    for (kind, set, elements) in steps(changes) {
        message(&mut bytes, kind, NLM_F_ACK | NLM_F_CREATE, [NFPROTO_INET, 0, 0, 0], |bytes| {
            attribute(bytes, NFTA_SET_ELEM_LIST_TABLE, |bytes| bytes.extend(NAME));
            attribute(bytes, NFTA_SET_ELEM_LIST_SET, |bytes| {
                bytes.extend(set.as_bytes());
                bytes.push(0);
            });
            attribute(bytes, NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, |bytes| {
                for prefix in elements {
                    interval(bytes, prefix);
                }
            });
        });
    }
    message(&mut bytes, NFNL_MSG_BATCH_END, 0, [AF_UNSPEC, 0, 0, NFNL_SUBSYS_NFTABLES], |_| {});
    bytes
}

/// The two elements of a prefix: its first address, and the first one behind it.
fn interval(bytes: &mut Vec<u8>, prefix: &IpNet) {
    let end = behind(prefix);
    element(bytes, prefix.network(), |bytes| {
        if end.is_none() {
            attribute(bytes, NFTA_SET_ELEM_USERDATA, |bytes| bytes.extend(OPEN));
        }
    });
    if let Some(end) = end {
        element(bytes, end, |bytes| {
            let flags = NFT_SET_ELEM_INTERVAL_END.to_be_bytes();
            attribute(bytes, NFTA_SET_ELEM_FLAGS, |bytes| bytes.extend(flags));
        });
    }
}

/// The first address behind a prefix; `None` behind the last of all.
fn behind(prefix: &IpNet) -> Option<IpAddr> {
    match prefix.broadcast() {
        IpAddr::V4(last) => last.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(last) => last.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn element(bytes: &mut Vec<u8>, key: IpAddr, more: impl FnOnce(&mut Vec<u8>)) {
    attribute(bytes, NFTA_LIST_ELEM | NLA_F_NESTED, |bytes| {
        attribute(bytes, NFTA_SET_ELEM_KEY | NLA_F_NESTED, |bytes| {
            attribute(bytes, NFTA_DATA_VALUE, |bytes| match key {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            });
        });
        more(bytes);
    });
}

/// `struct nlmsghdr`, `struct nfgenmsg` (family, version, and a resource in network byte order), and what they head.
fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, head: [u8; 4], payload: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Nobody looks at the sequence number and the port: the answers come in the order of what they answer.
    bytes.extend([0; 8]);
    bytes.extend(head);
    payload(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX).to_ne_bytes();
    bytes.iter_mut().skip(start).zip(length).for_each(|(byte, value)| *byte = value);
}

/// An attribute, its length, and what fills it up to four bytes.
fn attribute(bytes: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 2]);
    bytes.extend(kind.to_ne_bytes());
    value(bytes);
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
    bytes.iter_mut().skip(start).zip(length).for_each(|(byte, value)| *byte = value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests;
