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

/// After enough packets for a promotion, the packets of [`MEASURED`] exchanges.
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
        // One of the two may be promoted, by the order in which conntrack met them.
        _ if traffic == Traffic::Twin => Ok(()),
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
    fn one_invalid_packet_is_one_too_many_on_either_node() {
        for (invalid, expected) in [([0, 0], true), ([1, 0], false), ([0, 1], false)] {
            assert_eq!(nothing_invalid(Gauges { redirected: [0, 0], invalid }).is_ok(), expected);
        }
    }
}
