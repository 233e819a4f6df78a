use nix::errno::Errno;

use super::{HOST_PREFIX, NodeError};
use crate::link::{LinkError, Socket, sysctl};

const IPV4: &str = "net/ipv4/ip_forward";
const IPV6: &str = "net/ipv6/conf/all/forwarding";

/// Accept router advertisements while not forwarding.
const ACCEPT_AS_HOST: &str = "1";
/// Accept router advertisements always.
const ACCEPT: &str = "2";

/// Lets the host forward packets, also those of IPv6 where pods have it; says whether it did not before.
///
/// A host that forwards IPv6 is a router: it does not listen to other routers any more and forgets what they told it, its
/// own default route above all. So each interface that listens is first told to do so in any case: `accept_ra` in
/// <https://docs.kernel.org/networking/ip-sysctl.html>.
pub fn forward(ipv6: bool) -> Result<bool, NodeError> {
    let mut changed = sysctl::ensure(IPV4, "1")?;
    if ipv6 && sysctl::read(IPV6).map_err(without_ipv6)? != "1" {
        keep_listening_to_routers()?;
        sysctl::write(IPV6, "1")?;
        changed = true;
    }
    Ok(changed)
}

/// Not on the interfaces of pods: a host that listened there would take its default route from a pod.
fn keep_listening_to_routers() -> Result<(), LinkError> {
    for link in Socket::open()?.links()? {
        if link.name.starts_with(HOST_PREFIX) {
            continue;
        }
        match keep_listening(&link.name) {
            // It has no IPv6, as with an MTU below 1280, or is gone.
            Err(error) if is_missing(&error) => {}
            done => done?,
        }
    }
    Ok(())
}

/// An interface that forwards already has not listened so far.
fn keep_listening(device: &str) -> Result<(), LinkError> {
    let accept = sysctl::device_key("ipv6", device, "accept_ra")?;
    let forwards = sysctl::read(&sysctl::device_key("ipv6", device, "forwarding")?)? != "0";
    if !forwards && sysctl::read(&accept)? == ACCEPT_AS_HOST {
        sysctl::write(&accept, ACCEPT)?;
    }
    Ok(())
}

fn without_ipv6(error: LinkError) -> NodeError {
    if is_missing(&error) { NodeError::NoIpv6(error) } else { error.into() }
}

fn is_missing(error: &LinkError) -> bool {
    error.errno() == Some(Errno::ENOENT as i32)
}

#[cfg(test)]
mod tests;
