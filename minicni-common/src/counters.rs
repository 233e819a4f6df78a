//! Verdicts, their reasons, and a counter for each.

use bytemuck::{Pod, Zeroable};

/// What became of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// Redirected; the stack did not see it.
    Fast,
    /// Left to the stack.
    Stack,
    /// Left to the stack, and no pod has to do with it.
    Host,
    /// Dropped.
    Drop,
    /// Not a verdict: something that happened to a flow.
    Event,
}

/// Defines [`Reason`] and [`Counters`] from one list, so that a reason without a counter cannot exist.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident, $field:ident, $verdict:ident;)+) => {
        /// Why a packet got its verdict, or what happened to a flow.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        /// A counter for every [`Reason`], in packets (or in flows, for events). One struct per CPU.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Reason {
            /// Every reason, in the order of [`Counters`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason's name, as in dumps and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }

            /// The verdict that the reason stands for.
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)+ }
            }
        }

        impl Counters {
            /// The counter of one reason.
            #[must_use]
            pub const fn get(&self, reason: Reason) -> u64 {
                match reason { $(Reason::$variant => self.$field,)+ }
            }

            /// Adds another CPU's counters, wrapping as the kernel's do.
            pub const fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }
        }

        const _: () = assert!(size_of::<Counters>() == 8 * Reason::ALL.len());
    };
}

reasons! {
    /// The flow is promoted and current.
    Redirected, redirected, Fast;
    /// There is no flow yet, or it is not proven.
    Learning, learning, Stack;
    /// The flow is promoted; this packet keeps conntrack and the proof fresh.
    Refresh, refresh, Stack;
    /// The flow had been promoted, but something changed: it starts anew.
    Stale, stale, Stack;
    /// TCP with SYN, FIN or RST.
    TcpControl, tcp_control, Stack;
    /// TCP after a FIN or RST.
    Closing, closing, Stack;
    /// TCP, where conntrack could not follow its end.
    TcpDisabled, tcp_disabled, Stack;
    /// The endpoint takes no part in the fast path.
    OptedOut, opted_out, Stack;
    /// The packet's TTL or hop limit ends here.
    Ttl, ttl, Stack;
    /// An address that no router takes to another host: multicast, broadcast, loopback, IPv6 link-local, the pod's own.
    Destination, destination, Stack;
    /// Neither TCP nor UDP.
    Protocol, protocol, Stack;
    /// A fragment.
    Fragment, fragment, Stack;
    /// IPv4 options or an IPv6 extension header.
    Options, options, Stack;
    /// A port of a protocol that conntrack's helpers read (FTP, SIP), to know of further connections.
    Helper, helper, Stack;
    /// The flow is promoted, but not this class of its traffic: another DSCP than that of its proofs.
    Class, class, Stack;
    /// A header that is cut short, or a length that lies.
    Malformed, malformed, Stack;
    /// Neither IPv4 nor IPv6 (ARP, say).
    NotIp, not_ip, Stack;
    /// A frame with a VLAN tag, or not addressed to the host's end.
    LinkLayer, link_layer, Stack;
    /// The interface is not in the endpoint map.
    UnknownInterface, unknown_interface, Stack;
    /// It entered at an uplink, and no pod of this host has sent anything of its flow, or not of late.
    NotOfPod, not_of_pod, Host;
    /// A source address that is not the pod's, or may be hidden behind VLAN tags.
    SpoofedSource, spoofed_source, Drop;
    /// A frame with a source MAC address that is not the pod's.
    SpoofedMac, spoofed_mac, Drop;
    /// The stack delivered a noted packet unchanged.
    Proof, proof, Event;
    /// Both directions of a flow got their proofs.
    Promoted, promoted, Event;
    /// A promoted flow was put back to observed.
    Demoted, demoted, Event;
    /// The stack delivered a tuple of the cache that had not entered so: a translated twin.
    Twin, twin, Event;
}
