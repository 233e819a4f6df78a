//! A test bench: two pods' interfaces, the programs loaded, frames pushed through them.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use minicni::datapath::{Constants, Endpoints, Flows, Generations, OBJECT, Pins, counters, load};
use minicni::link::{MacAddress, Netns, Socket, VethEnd, veth};
use minicni_common::{Counters, Direction, Endpoint, EndpointKind, Flow, Reason, names};
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_getres},
    unistd::geteuid,
};
use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::{packets::Frame, tagged};

/// The pin of the program that tags a packet and calls `egress`.
const TAGGED_EGRESS: &str = "tagged";

/// `TC_ACT_UNSPEC` (the stack goes on), `TC_ACT_SHOT`, `TC_ACT_REDIRECT` of `linux/pkt_cls.h`.
pub(crate) const OK: u32 = u32::MAX;
pub(crate) const SHOT: u32 = 2;
pub(crate) const REDIRECT: u32 = 7;

/// A limit that is long enough for what a test does before it, in an emulated guest on a busy machine, too.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// Long enough for it to be over.
pub(crate) const BEYOND: Duration = Duration::from_millis(3_100);

/// The family of the addresses that a test's frames bear.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

/// A pod as the datapath knows it.
#[derive(Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) ifindex: u32,
    /// The one of its two addresses that the test is about.
    pub(crate) address: IpAddr,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
    pub(crate) mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
}

impl Pod {
    /// The pod, spoken to with its other address.
    pub(crate) fn with(self, address: impl Into<IpAddr>) -> Self {
        Self { address: address.into(), ..self }
    }
}

/// Pod A, pod B, the pinned programs, and what was pushed through them so far.
pub(crate) struct Bench {
    pub(crate) a: Pod,
    pub(crate) b: Pod,
    /// A virtual address, of no pod.
    pub(crate) virtual_address: IpAddr,
    pub(crate) pins: Pins,
    name: String,
    frames: Vec<(Duration, Vec<u8>)>,
    /// Flows have their shortcuts as soon as they are promoted.
    shortcuts: bool,
    promoted: bool,
    /// Keeps what the tagging program calls.
    _calls: OwnedFd,
}

/// What became of a frame.
pub(crate) struct Outcome {
    pub(crate) action: u32,
    pub(crate) frame: Vec<u8>,
    pub(crate) treatment: Treatment,
}

/// What a packet bears beside its bytes, by which queueing disciplines may go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Treatment {
    pub(crate) mark: u16,
    pub(crate) priority: u32,
}

/// How a frame comes to a program.
#[derive(Clone, Copy, Default)]
struct Arrival {
    ifindex: u32,
    ingress_ifindex: u32,
    gso_size: u32,
    tag: u16,
    treatment: Treatment,
}

/// Load-time constants under which nothing becomes stale by the clock.
pub(crate) fn patient() -> Constants {
    Constants { proofs: 8, skipped: 0, refresh: 1 << 18, idle: 1 << 19, grace: 1 << 17, tcp: true }
}

/// A time for load-time constants: the programs' clock ticks with the kernel's coarse ones.
pub(crate) fn jiffies(time: Duration) -> u64 {
    let tick = Duration::from(clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).unwrap());
    u64::try_from(time.as_nanos() / tick.as_nanos()).unwrap()
}

/// Runs a test with IPv4 and with IPv6.
pub(crate) fn run(name: &str, constants: Constants, test: impl Fn(&mut Bench) + Sync) {
    for family in [Family::V4, Family::V6] {
        run_with(family, name, constants, &test);
    }
}

/// Runs a test, and where it promotes flows once more, with shortcuts to them.
pub(crate) fn run_with(family: Family, name: &str, constants: Constants, test: impl Fn(&mut Bench) + Sync) {
    if run_once(family, name, &constants, false, &test) {
        run_once(family, name, &constants, true, &test);
    }
}

/// As [`run`], by the flow cache alone: of tests that do to it what no program does.
pub(crate) fn run_without_shortcuts(name: &str, constants: Constants, test: impl Fn(&mut Bench) + Sync) {
    for family in [Family::V4, Family::V6] {
        run_once(family, name, &constants, false, &test);
    }
}

/// Runs a test on a thread of its own, in namespaces of its own. Whether it promoted flows.
fn run_once(
    family: Family,
    name: &str,
    constants: &Constants,
    shortcuts: bool,
    test: impl Fn(&mut Bench) + Sync,
) -> bool {
    eprintln!("{name} with {family:?}{}", if shortcuts { " and shortcuts" } else { "" });
    assert!(geteuid().is_root(), "the datapath tests load eBPF programs and need root; run `sudo -E cargo xtask test`");
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut bench = Bench::new(family, name, constants);
                bench.shortcuts = shortcuts;
                test(&mut bench);
                bench.promoted
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Bench {
    fn new(family: Family, name: &str, constants: &Constants) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        // The mount is seen by this thread alone and goes with it; any directory will do.
        mount(Some("bpf"), "/mnt", Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        let object = std::env::var_os("MINICNI_EBPF_OBJECT").map(|path| std::fs::read(path).unwrap());
        let pins = Pins::new(Path::new("/mnt/minicni"));
        let programs = load(&pins, object.as_deref().unwrap_or(OBJECT), constants, 0).unwrap();
        let calls = tagged::pin(&programs, &pins.program(TAGGED_EGRESS)).unwrap();
        let pod = |number: u8| {
            let host_mac = [2, 0, 0, 0, 0xff, number];
            let end = |name, mac| VethEnd { name, ifindex: None, mac: MacAddress(mac), mtu: 1500 };
            let (host, peer) = (format!("pod{number}"), format!("peer{number}"));
            let netns = Netns::open("/proc/thread-self/ns/net").unwrap();
            let pair = veth(&end(&host, host_mac), &end(&peer, [2, 0, 0, 0, 0, number]), netns.as_fd()).unwrap();
            Socket::open().unwrap().batch(vec![pair]).unwrap();
            let ifindex = if_nametoindex(host.as_str()).unwrap();
            let (ipv4, ipv6) =
                (Ipv4Addr::new(10, 1, 0, number), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()));
            let address = match family {
                Family::V4 => ipv4.into(),
                Family::V6 => ipv6.into(),
            };
            Pod { ifindex, address, ipv4, ipv6, mac: [2, 0, 0, 0, 0, number], host_mac }
        };
        let (a, b) = (pod(2), pod(3));
        let virtual_address = match family {
            Family::V4 => Ipv4Addr::new(10, 96, 0, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1).into(),
        };
        let name = format!("{name}-{family:?}");
        let mut bench = Self {
            a,
            b,
            virtual_address,
            pins,
            name,
            frames: Vec::new(),
            shortcuts: false,
            promoted: false,
            _calls: calls,
        };
        bench.enter(a, 0);
        bench.enter(b, 0);
        bench
    }

    /// Enters a pod into the endpoint map, with both of its addresses.
    pub(crate) fn enter(&mut self, pod: Pod, flags: u32) {
        self.enter_as(EndpointKind::Pod, pod, flags);
    }

    /// As `enter`, of an interface of any kind.
    pub(crate) fn enter_as(&mut self, kind: EndpointKind, pod: Pod, flags: u32) {
        let endpoint = Endpoint {
            kind: kind as u32,
            flags,
            ipv4: pod.ipv4.octets(),
            mac: pod.mac,
            reserved: [0; 2],
            ipv6: pod.ipv6.octets(),
        };
        Endpoints::open(&self.pins).unwrap().insert(pod.ifindex, &endpoint).unwrap();
    }

    pub(crate) fn generations(&self) -> Generations {
        Generations::open(&self.pins).unwrap()
    }

    /// The one flow in the cache.
    pub(crate) fn flow(&self) -> Flow {
        let flows = Flows::open(&self.pins).unwrap().all().unwrap();
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows[0].1
    }

    /// Empties the cache.
    pub(crate) fn evict(&self) {
        let mut flows = Flows::open(&self.pins).unwrap();
        for (key, _) in flows.all().unwrap() {
            flows.remove(&key).unwrap();
        }
    }

    /// Empties the cache, and voids shortcuts.
    pub(crate) fn forget(&self) {
        self.evict();
        self.generations().bump_all().unwrap();
    }

    /// The direction of the one flow that enters at a pod.
    pub(crate) fn direction_from(&self, pod: Pod) -> Direction {
        let flow = self.flow();
        *flow.directions.iter().find(|direction| direction.in_ifindex == pod.ifindex).unwrap()
    }

    pub(crate) fn counters(&self) -> Counters {
        counters(&self.pins).unwrap()
    }

    /// A frame enters the host from a pod.
    pub(crate) fn ingress(&mut self, from: Pod, frame: &[u8]) -> Outcome {
        self.ingress_gso(from, 0, frame)
    }

    /// As `ingress`, of a GSO packet with segments of `gso_size` bytes.
    pub(crate) fn ingress_gso(&mut self, from: Pod, gso_size: u32, frame: &[u8]) -> Outcome {
        self.push(names::INGRESS, Arrival { ifindex: from.ifindex, gso_size, ..Arrival::default() }, frame)
    }

    /// The stack delivers a frame to a pod; it had entered as `entered` at the interface `from`.
    pub(crate) fn egress(&mut self, from: u32, entered: &Frame, to: Pod, frame: &[u8]) -> Outcome {
        self.egress_tagged(entered.tag(), from, to, frame)
    }

    /// As `egress`, of a GSO packet with segments of `gso_size` bytes.
    pub(crate) fn egress_gso(&mut self, from: u32, entered: &Frame, to: Pod, gso_size: u32, frame: &[u8]) -> Outcome {
        let tag = entered.tag();
        let arrival =
            Arrival { ifindex: to.ifindex, ingress_ifindex: from, gso_size, tag, treatment: Treatment::default() };
        self.push(TAGGED_EGRESS, arrival, frame)
    }

    /// As `egress`, of a packet to which the stack did something beside.
    pub(crate) fn egress_treated(
        &mut self,
        treatment: Treatment,
        from: u32,
        entered: &Frame,
        to: Pod,
        frame: &[u8],
    ) -> Outcome {
        let tag = entered.tag();
        let arrival = Arrival { ifindex: to.ifindex, ingress_ifindex: from, gso_size: 0, tag, treatment };
        self.push(TAGGED_EGRESS, arrival, frame)
    }

    /// A frame passes the egress hook with a tag of the caller's choice.
    pub(crate) fn egress_tagged(&mut self, tag: u16, from: u32, to: Pod, frame: &[u8]) -> Outcome {
        let arrival = Arrival { ifindex: to.ifindex, ingress_ifindex: from, tag, ..Arrival::default() };
        self.push(TAGGED_EGRESS, arrival, frame)
    }

    /// The stack delivers a frame that no program has seen enter.
    pub(crate) fn egress_untagged(&mut self, from: u32, to: Pod, frame: &[u8]) -> Outcome {
        self.egress_tagged(0, from, to, frame)
    }

    fn push(&mut self, program: &str, arrival: Arrival, frame: &[u8]) -> Outcome {
        let Arrival { ifindex, ingress_ifindex, gso_size, tag, treatment } = arrival;
        let mut context = context(ifindex);
        context[8..10].copy_from_slice(&tag.to_ne_bytes());
        context[10..12].copy_from_slice(&treatment.mark.to_ne_bytes());
        context[32..36].copy_from_slice(&treatment.priority.to_ne_bytes());
        context[36..40].copy_from_slice(&ingress_ifindex.to_ne_bytes());
        context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        let (mut out, mut context_out) = (vec![0_u8; 70_000], [0_u8; 192]);
        let program = SchedClassifier::from_pin(self.pins.program(program)).unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ctx_out: Some(&mut context_out),
                ..TestRunOptions::new()
            })
            .unwrap();
        out.truncate(result.data_size_out as usize);
        let time = Duration::from_micros(self.frames.len() as u64);
        self.frames.extend([(time, frame.to_vec()), (time, out.clone())]);
        let half = |at: usize| u16::from_ne_bytes([context_out[at], context_out[at + 1]]);
        let priority = u32::from(half(34)) << 16 | u32::from(half(32));
        Outcome { action: result.return_value, frame: out, treatment: Treatment { mark: half(8), priority } }
    }

    /// Pushes a frame in and asserts its action and that exactly these counters grew, by one each.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        reasons: &[Reason],
        action: u32,
        push: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let before = self.counters();
        let outcome = push(self);
        let after = self.counters();
        let grown: Vec<_> = Reason::ALL
            .iter()
            .flat_map(|reason| vec![*reason; usize::try_from(after.get(*reason) - before.get(*reason)).unwrap()])
            .collect();
        assert_eq!(grown, reasons, "{:?}", self.name);
        assert_eq!(outcome.action, action);
        outcome
    }

    /// Pod A sends frames, each of which is left to the stack for its reason, as it is.
    #[track_caller]
    pub(crate) fn expect_in_the_stack(&mut self, cases: &[(&str, Vec<u8>, Reason)]) {
        let from = self.a;
        for (name, frame, reason) in cases {
            eprintln!("case: {name}");
            let out = self.expect(&[*reason], OK, |bench| bench.ingress(from, frame));
            assert_eq!(&out.frame, frame, "{name}: the frame was changed");
        }
    }

    /// One packet through the stack, unchanged but for what a router changes.
    #[track_caller]
    pub(crate) fn through_the_stack(&mut self, from: Pod, to: Pod, frame: &Frame, reason: Reason, events: &[Reason]) {
        self.expect(&[reason], OK, |bench| bench.ingress(from, &frame.bytes()));
        let routed = frame.routed(to.mac, to.host_mac);
        self.expect(events, OK, |bench| bench.egress(from.ifindex, frame, to, &routed.bytes()));
    }

    /// Sends packets both ways until the flow is promoted.
    #[track_caller]
    pub(crate) fn promote(&mut self, there: &Frame, back: &Frame) {
        let (a, b) = (self.a, self.b);
        for round in 1..=8 {
            self.through_the_stack(a, b, there, Reason::Learning, &[Reason::Proof]);
            let events: &[_] = if round == 8 { &[Reason::Proof, Reason::Promoted] } else { &[Reason::Proof] };
            self.through_the_stack(b, a, back, Reason::Learning, events);
        }
        self.promoted = true;
        if self.shortcuts {
            self.shorten(there, back);
        }
    }

    /// Sends packets of a promoted flow both ways until there are shortcuts.
    #[track_caller]
    pub(crate) fn shorten(&mut self, there: &Frame, back: &Frame) {
        let (a, b) = (self.a, self.b);
        for _ in 0..2 {
            self.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
            self.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
        }
    }
}

/// The part of `struct __sk_buff` that says where a packet is.
pub(crate) fn context(ifindex: u32) -> [u8; 192] {
    let mut context = [0_u8; 192];
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/pcap");
        let path = dir.join(format!("{}.pcap", self.name));
        let written = std::fs::create_dir_all(&dir).and_then(|()| File::create(&path)).map(|file| {
            let Ok(mut writer) = PcapWriter::new(file) else { return };
            for (time, frame) in &self.frames {
                let length = u32::try_from(frame.len()).unwrap_or_default();
                let _ = writer.write_packet(&PcapPacket::new(*time, length, frame));
            }
        });
        eprintln!("frames in {}: {written:?}", path.display());
    }
}
