//! The clsact qdisc, shared blocks, and the eBPF filters on them.
//!
//! A block is a numbered list of filters that any number of qdiscs refer to. It exists as long as one does.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE, Nla as _, parse_u32,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};

use nix::errno::Errno;

use super::{LinkError, Request, Socket};

pub(super) const CLSACT: &str = "clsact";
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/rtnetlink.h>
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
/// In place of a device's index it says that the parent is the number of a block.
const BLOCK_MAGIC: i32 = TcHeader::TCM_IFINDEX_MAGIC_BLOCK.cast_signed();
/// Priority and handle of the filters made here: fixed, so that making one again means the same one.
const PRIORITY: u16 = 1;
const HANDLE: u32 = 1;
pub(super) const ETH_P_ALL: u16 = 0x0003;

/// Adds a clsact qdisc whose two hooks run the filters of the blocks with these numbers, making the blocks where needed.
pub fn clsact(ifindex: u32, ingress_block: u32, egress_block: u32) -> Request<'static> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes = vec![
        TcAttribute::Kind(CLSACT.to_owned()),
        TcAttribute::Other(DefaultNla::new(TCA_INGRESS_BLOCK, ingress_block.to_ne_bytes().to_vec())),
        TcAttribute::Other(DefaultNla::new(TCA_EGRESS_BLOCK, egress_block.to_ne_bytes().to_vec())),
    ];
    let operation = format!("add clsact with blocks {ingress_block} and {egress_block} to dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Gives a device the qdisc that virtual devices have anyway, which sends at once.
pub fn noqueue(ifindex: u32) -> Request<'static> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![TcAttribute::Kind("noqueue".to_owned())];
    let operation = format!("set root qdisc noqueue on dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes the root qdisc of a device away; the kernel puts its default in place.
pub fn delete_root_qdisc(ifindex: u32) -> Request<'static> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::ROOT;
    let operation = format!("delete root qdisc of dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}

/// Puts a classifier program (direct action) on a block that some qdisc refers to, for packets of every protocol.
///
/// `replace` swaps the program of the filter made here before, without a gap; otherwise the kernel answers `EEXIST` if there
/// is one.
pub fn block_filter<'fd>(block: u32, program: BorrowedFd<'fd>, name: &str, replace: bool) -> Request<'fd> {
    let mut message = TcMessage::with_index(BLOCK_MAGIC);
    message.header.parent = TcHandle::from(block);
    message.header.handle = TcHandle::from(HANDLE);
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    message.attributes = classifier(program, name);
    let operation = format!("set filter {name} on block {block}");
    let flags = if replace { NLM_F_CREATE | NLM_F_REPLACE } else { NLM_F_CREATE | NLM_F_EXCL };
    Request::new(operation, RouteNetlinkMessage::NewTrafficFilter(message), flags)
}

/// The attributes of a filter that runs a program, whose return value is the verdict.
pub(super) fn classifier(program: BorrowedFd<'_>, name: &str) -> Vec<TcAttribute> {
    vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ]
}

/// Takes the filter that [`block_filter`] made off a block. That there is none, or no such block, is success.
pub fn delete_block_filter(block: u32) -> Request<'static> {
    let mut message = TcMessage::with_index(BLOCK_MAGIC);
    message.header.parent = TcHandle::from(block);
    message.header.handle = TcHandle::from(HANDLE);
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    let operation = format!("delete filter from block {block}");
    Request::new(operation, RouteNetlinkMessage::DelTrafficFilter(message), 0)
        .tolerate(Errno::ENOENT)
        .tolerate(Errno::EINVAL)
}

/// A filter on a block or a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The classifier's kind; `bpf` for those made here.
    pub kind: String,
    /// The id of its eBPF program.
    pub prog_id: Option<u32>,
    /// The name it was given.
    pub name: Option<String>,
    /// Its priority; lower ones run first.
    pub prio: u16,
    /// Its number within the priority.
    pub handle: u32,
}

/// A queueing discipline at the hooks of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// `clsact` or `ingress`.
    pub kind: String,
    /// The shared block at its ingress hook.
    pub ingress_block: Option<u32>,
    /// The shared block at its egress hook.
    pub egress_block: Option<u32>,
}

impl Socket {
    /// The filters on a block; none if there is no such block.
    pub fn block_filters(&mut self, block: u32) -> Result<Vec<Filter>, LinkError> {
        let mut message = TcMessage::with_index(BLOCK_MAGIC);
        message.header.parent = TcHandle::from(block);
        let operation = format!("list filters on block {block}");
        let request = Request::new(operation, RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP);
        Ok(self.dump(request)?.into_iter().filter_map(filter).collect())
    }

    /// The qdisc at the ingress and egress hooks of a device, `clsact` or `ingress`; `None` if there is none. Asked for by
    /// itself: a list is one of all devices, and while others are deleted the kernel may pass over one in it
    /// (`tc_dump_qdisc` counts them), and does not say so.
    pub fn hook_qdisc(&mut self, ifindex: u32) -> Result<Option<Qdisc>, LinkError> {
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.parent = TcHandle::CLSACT;
        let operation = format!("look for the clsact of dev {ifindex}");
        // The answer is a notification, which the asker gets as an echo (`qdisc_get_notify`):
        // https://elixir.bootlin.com/linux/v6.12/source/net/sched/sch_api.c#L1009
        let request = Request::new(operation, RouteNetlinkMessage::GetQueueDiscipline(message), NLM_F_ECHO)
            .tolerate(Errno::ENOENT)
            .tolerate(Errno::ENODEV);
        Ok(self.get(request)?.and_then(|answer| qdisc(answer, ifindex)))
    }
}

pub(super) fn filter(answer: RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    let mut filter = Filter {
        kind: String::new(),
        prog_id: None,
        name: None,
        prio: u16::try_from(message.header.info >> 16).unwrap_or(0),
        handle: message.header.handle.into(),
    };
    // Each priority is announced by an entry of its own, without a handle.
    if filter.handle == 0 {
        return None;
    }
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind = kind,
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.prog_id = Some(id),
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(filter)
}

fn qdisc(answer: RouteNetlinkMessage, ifindex: u32) -> Option<Qdisc> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = answer else { return None };
    if message.header.index != ifindex.cast_signed() {
        return None;
    }
    let mut qdisc = Qdisc { kind: String::new(), ingress_block: None, egress_block: None };
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind = kind,
            TcAttribute::Other(nla) if nla.kind() == TCA_INGRESS_BLOCK => qdisc.ingress_block = number(&nla),
            TcAttribute::Other(nla) if nla.kind() == TCA_EGRESS_BLOCK => qdisc.egress_block = number(&nla),
            _ => {}
        }
    }
    Some(qdisc)
}

fn number(nla: &DefaultNla) -> Option<u32> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    parse_u32(&bytes).ok()
}
