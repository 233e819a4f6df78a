//! Netlink, network namespaces and sysctls: what the plugin and the daemon say to the kernel.
//!
//! Builders ([`veth`], [`route()`], [`clsact`], …) return a [`Request`]; [`Socket::batch`] sends many of them in one system
//! call and collects every answer. The room knows neither pods nor CNI. Everything blocks, nothing is spawned except the
//! thread of [`Netns::run`].

mod address;
mod device;
mod device_filter;
mod error;
mod lookup;
mod mac;
mod neighbour;
mod netns;
mod request;
mod route;
mod socket;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod tests;
mod traffic_control;
mod vxlan;

pub use address::{address, address_aside, delete_address};
pub use device::{
    LinkInfo, VethEnd, alias, delete_group, delete_link, link_up, set_group, set_mtu, veth, without_link_local,
};
pub use device_filter::{Hook, clsact_alone, delete_device_filter, device_filter};
pub use error::LinkError;
pub use lookup::{index_of, mac_of, name_of};
pub use mac::{MacAddress, MacAddressError};
pub use neighbour::{Neighbour, neighbour};
pub use netns::Netns;
pub use request::Request;
pub use route::{Route, RouteFilter, RouteScope, delete_route, route};
pub use socket::Socket;
pub use traffic_control::{Filter, Qdisc, block_filter, clsact, delete_block_filter, delete_root_qdisc, noqueue};
pub use vxlan::{Vxlan, vxlan};
