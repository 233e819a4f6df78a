//! Which path packets have to take.

use super::conversation::LARGE_EVERY;
use super::{
    gauges::Gauges,
    matrix::{Conntrack, Kind, Setting, Traffic},
    outcome::{Check, ensure},
    phases::MEASURED,
};

/// Whether flows between pods of two nodes take the fast path of both.
const REMOTE_IS_FAST: bool = true;
/// The share of its packets that a promoted flow has on the fast path, at least, in percent.
const SHARE: u64 = 90;

/// No conntrack of any node may find a packet invalid.
pub(super) fn nothing_invalid(seen: Gauges) -> Check {
    let [one, other] = seen.invalid;
    ensure(one + other == 0, "no packet that is INVALID to conntrack", format!("{one} on node1, {other} on node2"))
}

/// With fewer packets than a promotion needs.
pub(super) fn before_promotion(kind: Kind, seen: Gauges) -> Check {
    if kind.is_direct() || !REMOTE_IS_FAST {
        return nothing_redirected(seen);
    }
    let [one, _] = seen.redirected;
    ensure(one == 0, "no packet on the fast path of node1", one)
}

/// No packet may be redirected.
fn nothing_redirected(seen: Gauges) -> Check {
    let [one, other] = seen.redirected;
    ensure(one + other == 0, "no packet on the fast path", format!("{one} on node1, {other} on node2"))
}

/// What a [`Traffic::Twin`] conversation has beside its translated address, which each of its two sockets sends to.
#[derive(Clone, Copy)]
pub(super) struct Twins {
    /// Addresses of pods that each socket sends to directly.
    pub(super) direct: usize,
    /// Whether the translated flow keeps the client's address, so that it takes a direct one's tuple where it comes first. Then
    /// conntrack changes the direct one's port.
    pub(super) clash: bool,
}

/// After enough packets for a promotion, those of [`MEASURED`] exchanges by twins: the direct flows are fast but the one whose port
/// conntrack changed, and the translated ones are not.
pub(super) fn twins(twins: Twins, seen: Gauges) -> Check {
    let flows = 2 * twins.direct as u64 - u64::from(twins.clash);
    let packets = 2 * MEASURED as u64 * flows;
    let (least, [one, _]) = (packets * SHARE / 100, seen.redirected);
    ensure((least..=packets).contains(&one), format!("{least} to {packets} packets on the fast path of node1"), one)
}

/// After enough packets for a promotion, the packets of [`MEASURED`] exchanges by whom [`twins`] is not about.
pub(super) fn path(setting: Setting, kind: Kind, traffic: Traffic, seen: Gauges) -> Check {
    let packets = 2 * MEASURED as u64;
    // Fragments are left to the stack, and the small messages between them are not.
    let packets = if traffic == Traffic::Fragments { packets - packets / LARGE_EVERY as u64 } else { packets };
    let may_be_fast = traffic != Traffic::Tcp || setting.conntrack == Conntrack::Liberal;
    let [one, other] = seen.redirected;
    let fast = |node: &str, seen: u64| {
        let least = packets * SHARE / 100;
        ensure(seen >= least, format!("{least} packets on the fast path of {node}, of {packets}"), seen)
    };
    match kind {
        Kind::DirectLocal if may_be_fast => fast("node1", one),
        Kind::DirectRemote if may_be_fast && REMOTE_IS_FAST => fast("node1", one).and_then(|()| fast("node2", other)),
        // The other node sees such a flow untranslated.
        _ if REMOTE_IS_FAST => ensure(one == 0, "no packet on the fast path of node1", one),
        _ => nothing_redirected(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::matrix::Rules, *};

    fn holds(conntrack: Conntrack, kind: Kind, traffic: Traffic, redirected: [u64; 2]) -> bool {
        let setting = Setting { rules: Rules::Nftables, ipv6: false, conntrack };
        path(setting, kind, traffic, Gauges { redirected, invalid: [0, 0] }).is_ok()
    }

    #[test]
    fn a_local_flow_is_to_be_fast_unless_it_is_tcp_beside_strict_conntrack() {
        use Conntrack::{Liberal, Strict};
        for (conntrack, traffic, redirected, expected) in [
            (Liberal, Traffic::Tcp, 200, true),
            (Liberal, Traffic::Udp, 180, true),
            (Liberal, Traffic::Udp, 179, false),
            (Liberal, Traffic::Fragments, 135, true),
            (Liberal, Traffic::Fragments, 134, false),
            (Strict, Traffic::Tcp, 0, true),
            (Strict, Traffic::Tcp, 1, false),
        ] {
            let seen = holds(conntrack, Kind::DirectLocal, traffic, [redirected, 0]);
            assert_eq!(seen, expected, "{conntrack:?} {traffic:?} {redirected}");
        }
    }

    #[test]
    fn one_redirected_packet_of_a_translated_flow_is_one_too_many() {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_direct()) {
            assert!(holds(Conntrack::Liberal, kind, Traffic::Udp, [0, 0]), "{kind:?}");
            assert!(!holds(Conntrack::Liberal, kind, Traffic::Udp, [1, 0]), "{kind:?}");
        }
    }

    #[test]
    fn all_untranslated_flows_of_twins_are_to_be_fast_and_no_other() {
        for (direct, clash, redirected, expected) in [
            (1, true, 180, true),
            (1, true, 179, false),
            (1, true, 201, false),
            (2, false, 800, true),
            (2, false, 719, false),
            (2, false, 801, false),
        ] {
            let seen = twins(Twins { direct, clash }, Gauges { redirected: [redirected, 0], invalid: [0, 0] }).is_ok();
            assert_eq!(seen, expected, "{direct} {clash} {redirected}");
        }
    }

    #[test]
    fn one_invalid_packet_is_one_too_many_on_either_node() {
        for (invalid, expected) in [([0, 0], true), ([1, 0], false), ([0, 1], false)] {
            assert_eq!(nothing_invalid(Gauges { redirected: [0, 0], invalid }).is_ok(), expected);
        }
    }
}
