//! The protocol versions this plugin serves, and which command each of them knows.

use super::{CniError, Code, Command};

/// A version of the specification that the plugin serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0: one address of each family, no interfaces.
    V0_1_0,
    /// 0.2.0: 0.1.0 in another spelling, for a plugin.
    V0_2_0,
    /// 0.3.0: brought `interfaces` and lists of addresses and routes.
    V0_3_0,
    /// 0.3.1: 0.3.0 as everybody had understood it.
    V0_3_1,
    /// 0.4.0: brought CHECK.
    V0_4_0,
    /// 1.0.0: dropped `ips[].version`.
    V1_0_0,
    /// 1.1.0: brought GC, STATUS and `interfaces[].mtu`.
    V1_1_0,
}

impl Version {
    /// Every version served, ascending. VERSION lists exactly these.
    pub const SUPPORTED: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// What is answered where the caller's version is not known, or is not served.
    pub const LATEST: Version = Version::V1_1_0;

    /// The version as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The served version that is spelled exactly so.
    pub fn parse(text: &str) -> Option<Version> {
        Version::SUPPORTED.into_iter().find(|version| version.as_str() == text)
    }

    /// The served version of a configuration whose `cniVersion` is `declared`, empty where it has none: the reference
    /// library's rule for configurations from before there was a version.
    pub(super) fn declared(declared: &str) -> Option<Version> {
        if declared.is_empty() { Some(Version::V0_1_0) } else { Version::parse(declared) }
    }

    /// The served version of a configuration whose `cniVersion` is `declared` (empty where it has none), for `command`.
    ///
    /// Errors: code 6 where CHECK, GC or STATUS meets something that is no version, code 1 where the version does not
    /// know the command or is not served.
    pub(super) fn negotiate(declared: &str, command: Command) -> Result<Version, CniError> {
        let version = Version::declared(declared);
        let declared = version.map_or(declared, |version| version.as_str());
        if let Some(since) = introduced(command) {
            let numbers = numbers(declared).ok_or_else(|| {
                CniError::new(Code::Decode, format!("cniVersion {declared:?} is not a version"))
                    .details("expected X.Y.Z")
            })?;
            if numbers < since {
                return Err(CniError::new(
                    Code::IncompatibleVersion,
                    format!("config version does not allow {}", command.as_str()),
                )
                .details(format!(
                    "config is {declared:?}, {} came with {}.{}.{}",
                    command.as_str(),
                    since[0],
                    since[1],
                    since[2]
                )));
            }
        }
        version.ok_or_else(|| {
            CniError::new(Code::IncompatibleVersion, "incompatible CNI versions").details(format!(
                "config is {declared:?}, plugin supports {:?}",
                Version::SUPPORTED.map(Version::as_str)
            ))
        })
    }
}

/// The version that brought a command, where it was not there from the start.
fn introduced(command: Command) -> Option<[u64; 3]> {
    match command {
        Command::Check => Some([0, 4, 0]),
        Command::Gc | Command::Status => Some([1, 1, 0]),
        Command::Add | Command::Del | Command::Version => None,
    }
}

/// The numbers of `X`, `X.Y` or `X.Y.Z`; what is left out is 0, as in the reference library.
pub(super) fn numbers(text: &str) -> Option<[u64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split('.');
    for number in &mut numbers {
        let Some(part) = parts.next() else { break };
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_back_as_itself() {
        for version in Version::SUPPORTED {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        assert_eq!(Version::SUPPORTED.last(), Some(&Version::LATEST));
        assert!(Version::SUPPORTED.is_sorted());
    }

    #[test]
    fn commands_are_open_to_the_versions_that_know_them() {
        use Command::{Add, Check, Del, Gc, Status};
        // Rule, cniVersion, command, version or code.
        let table: &[(&str, &str, Command, Result<Version, u32>)] = &[
            ("R-IN-2", "", Add, Ok(Version::V0_1_0)),
            ("R-IN-2", "", Del, Ok(Version::V0_1_0)),
            ("R-IN-2", "0.1.0", Del, Ok(Version::V0_1_0)),
            ("R-IN-2", "0.2.0", Add, Ok(Version::V0_2_0)),
            ("R-IN-2", "0.3.0", Add, Ok(Version::V0_3_0)),
            ("R-IN-2", "0.0.0", Add, Err(1)),
            ("R-IN-2", "0.5.0", Add, Err(1)),
            ("R-IN-2", "1.0", Add, Err(1)),
            ("R-IN-2", " 1.0.0", Add, Err(1)),
            ("R-IN-2", "2.0.0", Add, Err(1)),
            ("R-IN-2", "adsfsadf", Del, Err(1)),
            ("R-IN-2", "0.3.1", Add, Ok(Version::V0_3_1)),
            ("R-IN-2", "1.1.0", Del, Ok(Version::V1_1_0)),
            ("R-IN-3", "adsfsadf", Check, Err(6)),
            ("R-IN-3", "adsfsadf", Gc, Err(6)),
            ("R-IN-3", "1.1.0.0", Status, Err(6)),
            ("R-IN-3", "1..0", Status, Err(6)),
            ("R-IN-4", "", Check, Err(1)),
            ("R-IN-4", "0.3.1", Check, Err(1)),
            ("R-IN-4", "", Gc, Err(1)),
            ("R-IN-4", "", Status, Err(1)),
            ("R-IN-4", "0.5.0", Check, Err(1)),
            ("R-IN-4", "0.4.0", Check, Ok(Version::V0_4_0)),
            ("R-IN-4", "1.0.0", Gc, Err(1)),
            ("R-IN-4", "1.0.0", Status, Err(1)),
            ("R-IN-4", "1.1.0", Gc, Ok(Version::V1_1_0)),
            ("R-IN-4", "1.1.0", Status, Ok(Version::V1_1_0)),
            ("R-IN-4", "1.2.0", Status, Err(1)),
        ];
        for (rule, declared, command, expected) in table {
            let got = Version::negotiate(declared, *command).map_err(|error| error.code.number());
            assert_eq!(got, *expected, "{rule}: {declared:?} {command:?}");
        }
    }

    #[test]
    fn an_unserved_version_is_named_beside_the_served_ones() {
        let error = Version::negotiate("0.5.0", Command::Add).unwrap_err();
        assert_eq!(error.msg, "incompatible CNI versions");
        let served = r#"["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]"#;
        assert_eq!(error.details, format!(r#"config is "0.5.0", plugin supports {served}"#));
        let error = Version::negotiate("0.3.1", Command::Check).unwrap_err();
        assert_eq!(error.msg, "config version does not allow CHECK");
    }
}
