use std::time::Duration;

use nix::{
    errno::Errno,
    time::{ClockId, clock_getres},
};

use super::{Datapath, HOST_PREFIX, Mode, NodeError, attach, forward, uplink};
use crate::{
    datapath::{Constants, Generations, OBJECT, Pins, Programs, adopt, load},
    link::{Socket, sysctl},
};

const TCP_BE_LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
const TCP_IGNORE_INVALID_RST: &str = "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst";
const UDP_TIMEOUT: &str = "net/netfilter/nf_conntrack_udp_timeout";
/// The kernel's own default for [`UDP_TIMEOUT`].
const DEFAULT_UDP_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest tick that Linux has (`CONFIG_HZ=100`), should the kernel not tell.
const LONGEST_TICK: Duration = Duration::from_millis(10);

/// How a node is to be prepared.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What was asked for.
    pub datapath: Datapath,
    /// The level of the programs' own log, as aya-log counts: 0 is off and costs nothing, 5 is trace.
    pub ebpf_log_level: u8,
    /// Whether pods have IPv6 addresses, so that the host has to forward IPv6 too.
    pub ipv6: bool,
}

/// Makes the kernel settings that pods need and loads the programs, unless they are not wanted or, for
/// [`Datapath::Auto`], not to be had. The caller holds the lock of the node.
///
/// Programs that are attached already are replaced, and their maps kept, so that this may be repeated at any time.
pub fn prepare(pins: &Pins, settings: Settings) -> Result<Mode, NodeError> {
    forward(settings.ipv6)?;
    if settings.datapath == Datapath::Route {
        detach(pins)?;
        return Ok(Mode::Route { reason: None });
    }
    let tcp = conntrack_is_liberal();
    match load_programs(pins, settings.ebpf_log_level, tcp.is_ok()) {
        Ok(()) => Ok(Mode::Ebpf { without_tcp: tcp.err(), udp_timeout: udp_timeout().as_secs() }),
        Err(error) if settings.datapath == Datapath::Auto => Ok(Mode::Route { reason: Some(error.to_string()) }),
        Err(error) => Err(error),
    }
}

/// Makes conntrack accept the end of a connection whose data it did not see, or says why it cannot.
///
/// Without the first setting the FIN of a promoted flow is INVALID to conntrack, kube-proxy's rules drop it, and the
/// connection hangs. Without the second (Linux 5.14) the same happens to a RST once 2 GiB have passed conntrack by:
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_proto_tcp.c>, `tcp_in_window` and
/// `nf_conntrack_tcp_packet`.
fn conntrack_is_liberal() -> Result<(), String> {
    for setting in [TCP_BE_LIBERAL, TCP_IGNORE_INVALID_RST] {
        match sysctl::ensure(setting, "1") {
            Ok(_) => {}
            Err(error) if error.errno() == Some(Errno::ENOENT as i32) => {
                return Err(format!(
                    "{setting} is missing: nf_conntrack is not loaded, or the kernel is older than 5.14"
                ));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

impl Mode {
    /// Whether the settings that the programs were loaded for are still those of the host. Puts back what it may.
    pub fn stands(&self) -> bool {
        match self {
            Self::Ebpf { without_tcp, udp_timeout } => {
                conntrack_is_liberal().is_ok() == without_tcp.is_none() && *udp_timeout == self::udp_timeout().as_secs()
            }
            Self::Route { .. } => true,
        }
    }
}

/// Takes the programs off the pods and the uplinks, and with their pins the temptation to attach them again. What fails keeps
/// nothing else from being done.
pub fn detach(pins: &Pins) -> Result<(), NodeError> {
    [uplink::detach_all(pins), pins.remove_programs().map_err(NodeError::from), detach_from_pods()]
        .into_iter()
        .collect()
}

/// Before, the kernel begins to look after the pods' source addresses, as it does for pods that are wired from now on.
fn detach_from_pods() -> Result<(), NodeError> {
    let mut socket = Socket::open()?;
    for link in socket.links()?.into_iter().filter(|link| link.name.starts_with(HOST_PREFIX)) {
        match sysctl::write(&sysctl::device_key("ipv4", &link.name, "rp_filter")?, "1") {
            // It is gone.
            Err(error) if error.errno() == Some(Errno::ENOENT as i32) => {}
            written => written?,
        }
    }
    Ok(socket.batch(attach::detachments().into())?)
}

fn load_programs(pins: &Pins, log_level: u8, tcp: bool) -> Result<(), NodeError> {
    let constants = Constants::new(tick(), udp_timeout(), tcp);
    let programs = load(pins, OBJECT, &constants, log_level)?;
    adopt(pins)?;
    replace_attached(&programs)?;
    // What other programs remember was dated by their constants.
    Ok(Generations::open(pins)?.bump_all()?)
}

/// Replaces the programs of pods that are wired already.
fn replace_attached(programs: &Programs) -> Result<(), NodeError> {
    let mut socket = Socket::open()?;
    for (block, request) in attach::replacements(programs) {
        // The kernel keeps a block only while some device uses it; replacing a filter of none is an error.
        if let Err(error) = socket.batch(vec![request])
            && attach::attached(&mut socket, block)?.is_some()
        {
            return Err(error.into());
        }
    }
    Ok(())
}

/// The duration of a jiffy: the resolution of the kernel's coarse clocks.
fn tick() -> Duration {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .map(Duration::from)
        .filter(|tick| !tick.is_zero())
        .unwrap_or(LONGEST_TICK)
}

fn udp_timeout() -> Duration {
    let seconds = sysctl::read(UDP_TIMEOUT).ok().and_then(|text| text.trim().parse().ok());
    seconds.map_or(DEFAULT_UDP_TIMEOUT, Duration::from_secs)
}
