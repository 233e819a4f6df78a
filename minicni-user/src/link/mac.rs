//! Ethernet addresses.

use std::{fmt, str::FromStr};

/// An Ethernet address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A locally administered unicast address made of the low 48 bits of `hash`.
    pub fn local_from(hash: u64) -> Self {
        let [_, _, mut octets @ ..] = hash.to_be_bytes();
        // IEEE 802: bit 0 of the first octet is "group", bit 1 is "locally administered".
        let [first, ..] = &mut octets;
        *first = *first & 0xfc | 0x02;
        Self(octets)
    }

    /// The address in a netlink attribute; `None` for devices whose address has another length.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|octet| write!(f, ":{octet:02x}"))
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an Ethernet address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address such as 02:00:5e:10:00:01")]
pub struct MacAddressError(String);

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacAddressError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            // `from_str_radix` alone would take "+f" too.
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_address_survives_its_own_text(octets: [u8; 6]) {
            let address = MacAddress(octets);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn an_address_made_from_a_hash_is_locally_administered_unicast(hash: u64) {
            let MacAddress([first, ..]) = MacAddress::local_from(hash);
            prop_assert_eq!(first & 0x03, 0x02);
        }
    }

    #[test]
    fn text_that_is_not_an_address_is_refused_and_quoted() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "+2:00:00:00:00:00", "0200.0000.0000", "é:00:00:00:00:00"]
        {
            let error = text.parse::<MacAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
