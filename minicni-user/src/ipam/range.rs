//! A span of addresses out of one subnet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{IpamError, Result};

/// The addresses `start` to `end` (both included) of `subnet`, without the gateway's and without excluded prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    gateway: Option<IpAddr>,
    excluded: Vec<IpNet>,
    /// What lies between start and end and is not handed out, from first to last, as bits. In order, and no two of them
    /// overlap or touch.
    holes: Vec<(u128, u128)>,
}

impl Range {
    /// A range; without a start or end from the first or to the last usable address of the subnet. Neither the
    /// network address nor the IPv4 broadcast address is usable. The gateway may lie outside the subnet (it is often
    /// link-local); inside, it is left out. The errors name field and value as in the configuration.
    pub fn new(
        subnet: IpNet,
        range_start: Option<IpAddr>,
        range_end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self> {
        let corrected = subnet.trunc();
        if corrected != subnet {
            return Err(IpamError::HostBits { subnet, corrected });
        }
        let longest = subnet.max_prefix_len() - 2;
        if subnet.prefix_len() > longest {
            return Err(IpamError::TooSmall { subnet, longest });
        }
        let first = at(subnet.network(), bits(subnet.network()) + 1);
        let last = match subnet {
            IpNet::V4(_) => at(first, bits(subnet.broadcast()) - 1),
            IpNet::V6(_) => subnet.broadcast(),
        };
        let usable = |field, value: IpAddr| {
            same_family(field, value, subnet)?;
            if value < first || value > last {
                return Err(IpamError::NotUsable { field, value, subnet, first, last });
            }
            Ok(value)
        };
        let start = usable("rangeStart", range_start.unwrap_or(first))?;
        let end = usable("rangeEnd", range_end.unwrap_or(last))?;
        if start > end {
            return Err(IpamError::Reversed { start, end });
        }
        if let Some(gateway) = gateway {
            same_family("gateway", gateway, subnet)?;
            if start == gateway && end == gateway {
                return Err(IpamError::OnlyGateway { gateway });
            }
        }
        Ok(Self { subnet, start, end, gateway, excluded: Vec::new(), holes: Vec::new() }.with_holes())
    }

    /// The range without these prefixes, which are never handed out. They may overlap each other, the gateway and the
    /// bounds of the range, but must lie inside the subnet; a single address is a `/32` or `/128`. The errors name field
    /// and value as in the configuration.
    pub fn excluding(mut self, excluded: Vec<IpNet>) -> Result<Self> {
        for value in excluded {
            if !self.subnet.contains(&value) {
                return Err(IpamError::NotExcludable { value, subnet: self.subnet });
            }
            let corrected = value.trunc();
            if corrected != value {
                return Err(IpamError::ExcludedHostBits { value, corrected, address: value.addr() });
            }
            self.excluded.push(value);
        }
        let range = self.with_holes();
        if range.size() == 0 {
            return Err(IpamError::AllExcluded { range: range.to_string() });
        }
        Ok(range)
    }

    fn with_holes(mut self) -> Self {
        let (start, end) = (bits(self.start), bits(self.end));
        let gateway = self.gateway.filter(|gateway| self.spans(*gateway)).map(bits);
        let excluded = self.excluded.iter().map(|prefix| (bits(prefix.network()), bits(prefix.broadcast())));
        let holes = excluded.chain(gateway.map(|gateway| (gateway, gateway)));
        let mut holes: Vec<_> = holes
            .map(|(first, last)| (first.max(start), last.min(end)))
            .filter(|(first, last)| first <= last)
            .collect();
        holes.sort_unstable();
        holes.dedup_by(|next, previous| {
            let touches = next.0 <= previous.1.saturating_add(1);
            if touches {
                previous.1 = previous.1.max(next.1);
            }
            touches
        });
        self.holes = holes;
        self
    }

    /// The subnet the addresses are of.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The first address, unless it is the gateway's.
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address, unless it is the gateway's.
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// The gateway, as configured.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// How many addresses the range hands out.
    pub fn size(&self) -> u128 {
        // No overflow: the network address is never in a range, not even in that of ::/0.
        let span = bits(self.end) - bits(self.start) + 1;
        span - self.holes.iter().map(|(first, last)| last - first + 1).sum::<u128>()
    }

    /// Whether the range hands out this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.spans(address) && self.hole_at(bits(address)).is_none()
    }

    /// The last of the addresses around this one that are not handed out, `None` if this one is.
    fn hole_at(&self, bits: u128) -> Option<u128> {
        let behind = self.holes.partition_point(|(_, last)| *last < bits);
        self.holes.get(behind).filter(|(first, _)| *first <= bits).map(|(_, last)| *last)
    }

    /// Whether the address lies between start and end, those that are not handed out included.
    pub(super) fn spans(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && self.start <= address && address <= self.end
    }

    /// Whether an address lies in both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.spans(other.start) || other.spans(self.start)
    }

    /// The addresses `from` to `to` that the range hands out, one at a time: a /64 is never materialised. What is excluded
    /// is skipped at once.
    pub(super) fn walk(&self, from: IpAddr, to: IpAddr) -> impl Iterator<Item = IpAddr> {
        let mut next = Some(bits(from));
        std::iter::from_fn(move || {
            let mut current = next?;
            // What follows a hole is none: no two holes touch.
            if let Some(last) = self.hole_at(current) {
                current = last.checked_add(1)?;
            }
            next = current.checked_add(1);
            (current <= bits(to)).then(|| at(from, current))
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} to {}", self.subnet, self.start, self.end)?;
        for (position, prefix) in self.excluded.iter().enumerate() {
            write!(f, "{} {prefix}", if position == 0 { " without" } else { "," })?;
        }
        write!(f, ")")
    }
}

fn same_family(field: &'static str, value: IpAddr, subnet: IpNet) -> Result<()> {
    if value.is_ipv4() == subnet.network().is_ipv4() {
        Ok(())
    } else {
        Err(IpamError::OtherFamily { field, value, subnet })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address with these bits, of the family of `like`.
fn at(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        #[expect(clippy::cast_possible_truncation, reason = "the bits came from an IPv4 address")]
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range> {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Range::new(subnet.parse().unwrap(), address(start), address(end), address(gateway))
    }

    fn error(subnet: &str, start: &str, end: &str, gateway: &str) -> String {
        range(subnet, start, end, gateway).unwrap_err().to_string()
    }

    #[test]
    fn without_a_start_and_end_all_but_network_and_broadcast_address_are_in_the_range() {
        let v4 = range("10.1.0.0/24", "", "", "").unwrap();
        assert_eq!(
            (v4.start().to_string(), v4.end().to_string(), v4.size()),
            ("10.1.0.1".into(), "10.1.0.254".into(), 254)
        );
        let v6 = range("fd00::/64", "", "", "").unwrap();
        assert_eq!(v6.start().to_string(), "fd00::1");
        assert_eq!(v6.end().to_string(), "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(v6.size(), (1 << 64) - 1);
    }

    #[test]
    fn the_widest_and_the_narrowest_subnets_have_the_right_size() {
        for (subnet, size) in [("0.0.0.0/0", (1 << 32) - 2), ("::/0", u128::MAX), ("10.0.0.0/30", 2), ("fd00::/126", 3)]
        {
            assert_eq!(range(subnet, "", "", "").unwrap().size(), size, "{subnet}");
        }
    }

    #[test]
    fn a_subnet_with_host_bits_is_refused_with_the_right_prefix() {
        assert_eq!(error("10.1.0.5/24", "", "", ""), "subnet 10.1.0.5/24 has host bits set; the prefix is 10.1.0.0/24");
        assert!(error("fd00::1/64", "", "", "").ends_with("the prefix is fd00::/64"));
    }

    #[test]
    fn a_subnet_without_room_for_a_pool_is_refused() {
        for (subnet, longest) in
            [("10.0.0.0/31", "/30"), ("10.0.0.1/32", "/30"), ("fd00::/127", "/126"), ("fd00::/128", "/126")]
        {
            let error = error(subnet, "", "", "");
            assert!(error.contains(subnet) && error.contains(longest), "{error}");
        }
    }

    #[test]
    fn a_start_or_end_that_is_not_usable_is_refused_by_name() {
        for (start, end, named) in [
            ("10.2.0.1", "", "rangeStart 10.2.0.1"),
            ("10.1.0.0", "", "rangeStart 10.1.0.0"),
            ("", "10.1.0.255", "rangeEnd 10.1.0.255"),
            ("fd00::1", "", "rangeStart fd00::1"),
            ("", "fd00::1", "rangeEnd fd00::1"),
            ("10.1.0.9", "10.1.0.8", "rangeStart 10.1.0.9 is behind rangeEnd 10.1.0.8"),
        ] {
            let error = error("10.1.0.0/24", start, end, "");
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn the_gateway_is_left_out_and_may_lie_outside() {
        let inside = range("10.1.0.0/29", "", "", "10.1.0.1").unwrap();
        assert_eq!(inside.size(), 5);
        assert!(!inside.contains("10.1.0.1".parse().unwrap()));
        assert_eq!(range("10.1.0.0/29", "", "", "169.254.1.1").unwrap().size(), 6);
        assert!(error("10.1.0.0/29", "", "", "fe80::1").starts_with("gateway fe80::1"));
        assert!(error("10.1.0.0/29", "10.1.0.2", "10.1.0.2", "10.1.0.2").contains("only the gateway"));
    }

    #[test]
    fn an_address_of_the_other_family_is_never_in_a_range() {
        let all = range("0.0.0.0/0", "", "", "").unwrap();
        assert!(!all.contains("::1".parse().unwrap()));
        assert!(!range("::/0", "", "", "").unwrap().contains("10.0.0.1".parse().unwrap()));
    }
}
