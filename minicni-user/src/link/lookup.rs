//! What can be asked about a device without netlink: these calls do not wait for the kernel's network lock, which whoever
//! deletes a device holds for many milliseconds.

use std::os::fd::AsRawFd as _;

use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{LinkError, MacAddress};

/// The index of the device of this name in the calling thread's namespace; `None` if there is none.
pub fn index_of(name: &str) -> Result<Option<u32>, LinkError> {
    match if_nametoindex(name) {
        Ok(ifindex) => Ok(Some(ifindex)),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(refused(name, errno)),
    }
}

/// The name of the device of this index in the calling thread's namespace; `None` if there is none.
pub fn name_of(ifindex: u32) -> Result<Option<String>, LinkError> {
    match if_indextoname(ifindex) {
        // nix takes the null pointer by which libc says ENXIO for a name.
        Ok(name) if name.is_empty() => Ok(None),
        Ok(name) => Ok(Some(name.to_string_lossy().into_owned())),
        Err(Errno::ENXIO | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(refused(&ifindex.to_string(), errno)),
    }
}

/// The Ethernet address of the device of this name in the calling thread's namespace; `None` if there is none.
pub fn mac_of(name: &str) -> Result<Option<MacAddress>, LinkError> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| refused(name, errno))?;
    // SAFETY: the struct has numbers and unions of numbers and pointers only, for all of which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The kernel asks for a terminating zero, and no device's name leaves no room for it.
    if name.len() >= request.ifr_name.len() {
        return Ok(None);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request is a valid `ifreq` that lives for the call, and the kernel writes nothing beyond it.
    match Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) }) {
        Err(Errno::ENODEV) => return Ok(None),
        Err(errno) => return Err(refused(name, errno)),
        Ok(_) => {}
    }
    // SAFETY: `SIOCGIFHWADDR` succeeded, so that it wrote this field of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Ok(None);
    }
    let bytes: Vec<u8> = address.sa_data.iter().take(6).map(|byte| byte.cast_unsigned()).collect();
    Ok(MacAddress::from_slice(&bytes))
}

fn refused(name: &str, errno: Errno) -> LinkError {
    LinkError::Refused { operation: format!("look for dev {name}"), errno, reason: String::new() }
}
