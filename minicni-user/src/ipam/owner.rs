//! Who holds an address.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{IpamError, Result};

/// Linux `IFNAMSIZ` less the terminating zero.
const MAX_IFNAME: usize = 15;
/// Linux `NAME_MAX`: an owner is a file name.
const MAX_NAME: usize = 255;

/// One attachment: a container's interface. Never a pod's name: a recreated `StatefulSet` pod bears the name of the
/// one whose DEL may still come.
///
/// It reads `<container id>:<interface name>`, which is a safe and unique file name: neither part has a `/` or a `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    container_id: String,
    ifname: String,
}

impl Owner {
    /// An owner, if both names keep the rules of CNI and of a file name: otherwise [`IpamError::BadOwner`].
    pub fn new(container_id: &str, ifname: &str) -> Result<Self> {
        let bad = |field, value: &str, problem| Err(IpamError::BadOwner { field, value: value.to_owned(), problem });
        if !container_id.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !container_id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        {
            return bad(
                "container id",
                container_id,
                "must be letters, digits, '_', '.', '-' and start with a letter or digit",
            );
        }
        if ifname.is_empty() || ifname.len() > MAX_IFNAME {
            return bad("interface name", ifname, "must be 1 to 15 bytes long");
        }
        if ifname == "." || ifname == ".." || ifname.contains(|c: char| "/:\0".contains(c) || c.is_whitespace()) {
            return bad("interface name", ifname, "must not be '.' or '..' or have a '/', a ':' or white space");
        }
        let owner = Self { container_id: container_id.to_owned(), ifname: ifname.to_owned() };
        if owner.to_string().len() > MAX_NAME {
            return bad(
                "owner",
                &owner.to_string(),
                "is longer than the 255 bytes of a file name; use a shorter container id",
            );
        }
        Ok(owner)
    }

    /// The container id, as the runtime gave it.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The name of the interface inside the container.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container_id, self.ifname)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl TryFrom<String> for Owner {
    type Error = IpamError;

    fn try_from(name: String) -> Result<Self> {
        match name.split_once(':') {
            Some((container_id, ifname)) => Self::new(container_id, ifname),
            None => {
                Err(IpamError::BadOwner { field: "owner", value: name, problem: "is not <container id>:<interface>" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_could_leave_the_directory_is_refused() {
        for (container_id, ifname) in [
            ("", "eth0"),
            ("../x", "eth0"),
            ("a/b", "eth0"),
            ("-a", "eth0"),
            (".a", "eth0"),
            ("a:b", "eth0"),
            ("ä", "eth0"),
            ("a", ""),
            ("a", "."),
            ("a", ".."),
            ("a", "e/0"),
            ("a", "e:0"),
            ("a", "e 0"),
            ("a", "e\0"),
            ("a", "sixteen_bytes_xx"),
        ] {
            assert!(
                matches!(Owner::new(container_id, ifname), Err(IpamError::BadOwner { .. })),
                "{container_id:?} {ifname:?}"
            );
        }
    }

    #[test]
    fn an_owner_longer_than_a_file_name_is_refused_with_a_reason() {
        assert!(Owner::new(&"a".repeat(250), "eth0").is_ok());
        let error = Owner::new(&"a".repeat(251), "eth0").unwrap_err().to_string();
        assert!(error.contains("longer than the 255 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn every_valid_owner_is_one_plain_file_name_and_reads_back(
            container_id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}",
            ifname in "[^/:\\s\0.]{1,3}[^/:\\s\0]{0,2}",
        ) {
            prop_assume!(ifname.len() <= MAX_IFNAME);
            let owner = Owner::new(&container_id, &ifname).unwrap();
            let name = owner.to_string();
            prop_assert!(std::path::Path::new(&name).file_name().is_some_and(|plain| plain == name.as_str()));
            prop_assert_eq!(Owner::try_from(name).unwrap(), owner);
        }
    }
}
