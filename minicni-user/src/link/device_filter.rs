//! eBPF filters on a device that is not ours alone: an uplink of a kernel without TCX.

use std::os::fd::BorrowedFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpf, TcHandle, TcMessage},
};
use nix::errno::Errno;

use super::{
    Filter, LinkError, Request, Socket,
    traffic_control::{CLSACT, ETH_P_ALL, classifier, filter},
};

/// Behind the priorities that people and programs choose, so that ours sees what theirs let pass.
const PRIORITY: u16 = 65_000;
/// "mni", so that a filter of the same priority is not taken for ours.
const HANDLE: u32 = 0x6d_6e69;

/// Where a filter runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// On what enters the host.
    Ingress,
    /// On what leaves it.
    Egress,
}

impl Hook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }

    /// `ingress` or `egress`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Adds a clsact qdisc without filters, unless the device has one, whose filters stay.
pub fn clsact_alone(ifindex: u32) -> Request<'static> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes = vec![TcAttribute::Kind(CLSACT.to_owned())];
    let operation = format!("add clsact to dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
        .tolerate(Errno::EEXIST)
}

/// Puts a classifier program (direct action) on a device with a clsact qdisc, for packets of every protocol and behind
/// other filters, or swaps the program of the filter made here before, without a gap.
pub fn device_filter<'fd>(ifindex: u32, hook: Hook, program: BorrowedFd<'fd>, name: &str) -> Request<'fd> {
    let mut message = ours(ifindex, hook);
    message.attributes = classifier(program, name);
    let operation = format!("set {} filter {name} on dev {ifindex}", hook.name());
    Request::new(operation, RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes the filter that [`device_filter`] made off a device. That there is none, or no such device, is success.
pub fn delete_device_filter(ifindex: u32, hook: Hook) -> Request<'static> {
    let mut message = ours(ifindex, hook);
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    let operation = format!("delete {} filter from dev {ifindex}", hook.name());
    Request::new(operation, RouteNetlinkMessage::DelTrafficFilter(message), 0)
        .tolerate(Errno::ENOENT)
        .tolerate(Errno::EINVAL)
        .tolerate(Errno::ENODEV)
}

fn ours(ifindex: u32, hook: Hook) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = hook.parent();
    message.header.handle = TcHandle::from(HANDLE);
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    message
}

impl Filter {
    /// Whether [`device_filter`] made it, of all filters of a device.
    pub fn is_ours(&self) -> bool {
        (self.prio, self.handle, self.kind.as_str()) == (PRIORITY, HANDLE, TcFilterBpf::KIND)
    }
}

impl Socket {
    /// The filters on a hook of a device; none where it has no clsact qdisc.
    pub fn device_filters(&mut self, ifindex: u32, hook: Hook) -> Result<Vec<Filter>, LinkError> {
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.parent = hook.parent();
        let operation = format!("list {} filters on dev {ifindex}", hook.name());
        let request = Request::new(operation, RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP);
        Ok(self.dump(request)?.into_iter().filter_map(filter).collect())
    }
}
