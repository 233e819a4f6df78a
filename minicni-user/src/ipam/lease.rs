//! What one file under `leases/` says.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Owner;

/// An address that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// Why it is not free.
    pub state: LeaseState,
}

/// Why an address is not free. Every `since` is in seconds since boot, see [`boottime`](super::boottime).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaseState {
    /// An attachment holds it.
    Leased {
        /// Which attachment.
        owner: Owner,
        /// The pod as `namespace/name`, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<String>,
        /// When it was handed out.
        since: u64,
    },
    /// It was released, and should rest before somebody else gets it.
    Cooling {
        /// When it was released.
        since: u64,
    },
    /// Its file can not be read or understood: in use, until its owner is released or a sweep finds that it has none.
    #[serde(skip)]
    Unreadable {
        /// What is wrong with the file.
        reason: String,
    },
}

impl LeaseState {
    /// What the bytes of a lease file say.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|error| Self::Unreadable { reason: error.to_string() })
    }

    /// Whether this is a lease of that owner, readable.
    pub(super) fn is_leased_by(&self, who: &Owner) -> bool {
        matches!(self, Self::Leased { owner, .. } if owner == who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_back_as_written_and_is_plain_json() {
        let state = LeaseState::Leased {
            owner: Owner::new("c1", "eth0").unwrap(),
            pod: Some("default/web".to_owned()),
            since: 7,
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, r#"{"state":"leased","owner":"c1:eth0","pod":"default/web","since":7}"#);
        assert_eq!(LeaseState::decode(text.as_bytes()), state);
        assert_eq!(LeaseState::decode(br#"{"state":"cooling","since":9,"later":1}"#), LeaseState::Cooling { since: 9 });
    }

    #[test]
    fn whatever_is_not_a_whole_valid_lease_is_unreadable() {
        let whole = br#"{"state":"leased","owner":"c1:eth0","since":7}"#;
        for length in 0..whole.len() {
            assert!(matches!(LeaseState::decode(&whole[..length]), LeaseState::Unreadable { .. }), "{length}");
        }
        for garbage in [
            &b"\xff\xfe\0"[..],
            b"null",
            b"{}",
            br#"{"state":"unreadable","reason":"x"}"#,
            br#"{"state":"leased","owner":"../../etc:eth0","since":7}"#,
            br#"{"state":"cooling","since":-1}"#,
        ] {
            assert!(matches!(LeaseState::decode(garbage), LeaseState::Unreadable { .. }), "{garbage:?}");
        }
    }
}
