//! What can go wrong, and what to do about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::Owner;

/// The result of every call of this module.
pub type Result<T> = std::result::Result<T, IpamError>;

/// Why a pool is not one, or an address could not be leased or released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// A subnet that names a host.
    #[error("subnet {subnet} has host bits set; the prefix is {corrected}")]
    HostBits {
        /// As configured.
        subnet: IpNet,
        /// With the host bits cleared.
        corrected: IpNet,
    },
    /// A subnet without room for a pool.
    #[error("subnet {subnet} is too small for a pool; use a /{longest} or larger")]
    TooSmall {
        /// As configured.
        subnet: IpNet,
        /// The longest prefix that holds a pool.
        longest: u8,
    },
    /// An address of the other family.
    #[error("{field} {value} is not of the address family of subnet {subnet}")]
    OtherFamily {
        /// The key in the configuration.
        field: &'static str,
        /// As configured.
        value: IpAddr,
        /// The subnet it was given with.
        subnet: IpNet,
    },
    /// A start or end that can not be handed out.
    #[error("{field} {value} is not usable in subnet {subnet}: it must be from {first} to {last}")]
    NotUsable {
        /// The key in the configuration.
        field: &'static str,
        /// As configured.
        value: IpAddr,
        /// The subnet it was given with.
        subnet: IpNet,
        /// The first usable address of the subnet.
        first: IpAddr,
        /// The last usable address of the subnet.
        last: IpAddr,
    },
    /// A start behind the end.
    #[error("rangeStart {start} is behind rangeEnd {end}; swap them")]
    Reversed {
        /// As configured.
        start: IpAddr,
        /// As configured.
        end: IpAddr,
    },
    /// A range of one address, which is the gateway's.
    #[error("the range from {gateway} to {gateway} holds only the gateway {gateway}; widen it")]
    OnlyGateway {
        /// As configured.
        gateway: IpAddr,
    },
    /// An excluded prefix that is not of the subnet.
    #[error("exclude {value} is not inside subnet {subnet}")]
    NotExcludable {
        /// As configured.
        value: IpNet,
        /// The subnet it was given with.
        subnet: IpNet,
    },
    /// An excluded prefix that names a host.
    #[error(
        "exclude {value} has host bits set; the prefix is {corrected}, the address alone is {}", IpNet::from(*address)
    )]
    ExcludedHostBits {
        /// As configured.
        value: IpNet,
        /// With the host bits cleared.
        corrected: IpNet,
        /// Without the prefix length.
        address: IpAddr,
    },
    /// A range of which nothing is left.
    #[error("exclude leaves no address of {range}; exclude less of it")]
    AllExcluded {
        /// The range.
        range: String,
    },
    /// A range set without ranges, or an allocation without range sets.
    #[error("no address range is configured; give at least one subnet")]
    NoRanges,
    /// A range set of both families.
    #[error("ranges {first} and {second} of one range set differ in family; put each family into a set of its own")]
    MixedFamilies {
        /// A range of the set.
        first: String,
        /// A range of the other family in the same set.
        second: String,
    },
    /// Two ranges that share addresses.
    #[error("ranges {first} and {second} overlap; an address may be in one range only")]
    Overlap {
        /// The one range.
        first: String,
        /// The other range.
        second: String,
    },
    /// A container id or interface name that is not one.
    #[error("{field} {value:?} {problem}")]
    BadOwner {
        /// `container id`, `interface name` or `owner`.
        field: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A second ADD without a DEL in between.
    #[error("{owner} already holds {}; delete the attachment before adding it again", comma_separated(addresses))]
    AlreadyLeased {
        /// Who asked.
        owner: Owner,
        /// What it holds.
        addresses: Vec<IpAddr>,
    },
    /// A requested address that no pool hands out.
    #[error("address {address} is not handed out: the ranges are {sets}; ask for one of these, not the gateway's")]
    NotInRanges {
        /// As requested.
        address: IpAddr,
        /// The ranges of all pools.
        sets: String,
    },
    /// Two requested addresses out of one pool.
    #[error("addresses {first} and {second} are both of {set}; an interface gets one address of it, ask for one")]
    TwoRequested {
        /// As requested.
        first: IpAddr,
        /// As requested.
        second: IpAddr,
        /// The ranges of the pool.
        set: String,
    },
    /// A requested address that is in use.
    #[error("address {address} is taken: {holder}; ask for another, or delete its holder first")]
    Taken {
        /// As requested.
        address: IpAddr,
        /// Who holds it, or what is wrong with its lease.
        holder: String,
    },
    /// Nothing is left; what still cooled down has been given away before.
    #[error(
        "no free address in {set}: of {size} usable addresses {leased} are leased, none is cooling and {unreadable} have \
         an unreadable lease; delete pods, collect stale leases, or configure a larger subnet"
    )]
    Exhausted {
        /// The ranges of the pool.
        set: String,
        /// Addresses the pool may hand out.
        size: u128,
        /// Addresses held by an owner.
        leased: u128,
        /// Addresses whose lease file can not be read, hence in use.
        unreadable: u128,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// `10.1.0.2,fd00::2`: how a list of addresses reads, in messages and in symlinks.
pub(super) fn comma_separated(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}
