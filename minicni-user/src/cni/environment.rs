//! The `CNI_*` variables.

use std::path::PathBuf;

use super::{CniError, Code};

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Verify an attachment.
    Check,
    /// Remove an attachment.
    Del,
    /// Remove every attachment that is not listed as valid.
    Gc,
    /// Say whether an ADD could be served.
    Status,
    /// List the served versions.
    Version,
}

impl Command {
    const ALL: [Command; 6] =
        [Command::Add, Command::Check, Command::Del, Command::Gc, Command::Status, Command::Version];

    /// The command as it stands in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Check => "CHECK",
            Command::Del => "DEL",
            Command::Gc => "GC",
            Command::Status => "STATUS",
            Command::Version => "VERSION",
        }
    }

    /// Whether the command is about one attachment, and not about the network or the plugin.
    fn names_an_attachment(self) -> bool {
        matches!(self, Command::Add | Command::Check | Command::Del)
    }
}

/// `CNI_ARGS`: pairs in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Reads `K=V;K=V`. A value may contain `=`; what is not a pair is skipped.
    pub fn parse(text: &str) -> Args {
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        Args(pairs.filter(|(key, _)| !key.is_empty()).map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The value of `key`, spelled exactly so; the last one where it was given twice.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// The validated environment of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`: alphanumerics, `_`, `.`, `-`, the first one alphanumeric, of any length. Empty for GC,
    /// STATUS and VERSION.
    pub container_id: String,
    /// `CNI_NETNS`, verbatim and not looked at. There for ADD and CHECK; DEL may come without.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`: a valid interface name of 1 to 15 bytes. Empty for GC, STATUS and VERSION.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`. May be absent, since nothing is delegated to another plugin.
    pub cni_path: Option<String>,
    /// `CNI_NETNS_OVERRIDE`: the plugin's own network namespace is allowed as `CNI_NETNS`.
    pub netns_override: bool,
}

impl Environment {
    /// Reads the variables through `lookup`; an empty variable counts as absent. `None` where there is no command.
    ///
    /// Errors: code 4, naming the variable; all the missing ones together.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Environment>, CniError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let Some(command) = lookup("CNI_COMMAND") else { return Ok(None) };
        let command = Command::ALL.into_iter().find(|known| known.as_str() == command).ok_or_else(|| {
            CniError::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {command}"))
                .details(format!("expected one of {}", Command::ALL.map(Command::as_str).join(", ")))
        })?;

        let mut environment = Environment {
            command,
            container_id: String::new(),
            netns: lookup("CNI_NETNS").map(PathBuf::from),
            ifname: String::new(),
            args: Args::parse(&lookup("CNI_ARGS").unwrap_or_default()),
            cni_path: lookup("CNI_PATH"),
            netns_override: lookup("CNI_NETNS_OVERRIDE").is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true")),
        };
        if command.names_an_attachment() {
            environment.container_id = lookup("CNI_CONTAINERID").unwrap_or_default();
            environment.ifname = lookup("CNI_IFNAME").unwrap_or_default();
            environment.require()?;
            validate_container_id(&environment.container_id)?;
            validate_ifname(&environment.ifname)?;
        }
        Ok(Some(environment))
    }

    /// That nothing is missing which the command cannot do without.
    fn require(&self) -> Result<(), CniError> {
        let netns_missing = self.netns.is_none() && self.command != Command::Del;
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", self.container_id.is_empty()),
            ("CNI_NETNS", netns_missing),
            ("CNI_IFNAME", self.ifname.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let msg = format!("required env variables [{}] missing", missing.join(","));
        Err(CniError::new(Code::InvalidEnvironment, msg).details(format!("for CNI_COMMAND={}", self.command.as_str())))
    }
}

/// What container ids and network names have in common: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn validate_container_id(id: &str) -> Result<(), CniError> {
    if is_identifier(id) {
        return Ok(());
    }
    Err(CniError::new(Code::InvalidEnvironment, "invalid characters in containerID")
        .details(format!("CNI_CONTAINERID is {id:?}, expected [a-zA-Z0-9][a-zA-Z0-9_.-]*")))
}

/// The kernel's rules for interface names (`dev_valid_name` in net/core/dev.c).
fn validate_ifname(name: &str) -> Result<(), CniError> {
    let problem = if name.len() > 15 {
        "interface name is too long"
    } else if name == "." || name == ".." {
        "interface name is . or .."
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "interface name contains / or : or whitespace characters"
    } else {
        return Ok(());
    };
    let details = format!("CNI_IFNAME is {name:?}, expected at most 15 bytes without /, : and whitespace");
    Err(CniError::new(Code::InvalidEnvironment, problem).details(details))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Option<Environment>, CniError> {
        Environment::parse(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// A complete environment with one variable set to something else, or to nothing.
    fn with(command: &str, name: &str, value: &str) -> Result<Option<Environment>, CniError> {
        let complete =
            [("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];
        let mut variables = vec![(name, value)];
        variables.extend(complete);
        parse(&variables)
    }

    #[test]
    fn r_env_1_missing_variables_are_reported_together() {
        let table: &[(&str, Option<&str>)] = &[
            ("ADD", Some("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME")),
            ("CHECK", Some("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME")),
            ("DEL", Some("CNI_CONTAINERID,CNI_IFNAME")),
            ("GC", None),
            ("STATUS", None),
            ("VERSION", None),
        ];
        for (command, missing) in table {
            let got = parse(&[("CNI_COMMAND", command)]);
            let Some(missing) = missing else {
                assert!(got.unwrap().is_some(), "{command}");
                continue;
            };
            let error = got.unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment, "{command}");
            assert_eq!(error.msg, format!("required env variables [{missing}] missing"), "{command}");
        }
    }

    #[test]
    fn a_set_but_empty_variable_counts_as_missing() {
        for (command, name, served) in [
            ("ADD", "CNI_CONTAINERID", false),
            ("ADD", "CNI_NETNS", false),
            ("ADD", "CNI_IFNAME", false),
            ("CHECK", "CNI_NETNS", false),
            ("DEL", "CNI_CONTAINERID", false),
            ("DEL", "CNI_NETNS", true),
            ("ADD", "CNI_PATH", true),
            ("ADD", "CNI_ARGS", true),
        ] {
            assert_eq!(with(command, name, "").is_ok(), served, "{command} {name}");
        }
        assert_eq!(with("DEL", "CNI_NETNS", "").unwrap().unwrap().netns, None);
    }

    #[test]
    fn no_command_is_no_error() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(with("ADD", "CNI_COMMAND", ""), Ok(None));
    }

    #[test]
    fn commands_are_matched_exactly() {
        for command in ["add", " ADD", "ADD\n", "NOPE"] {
            let error = with(command, "CNI_PATH", "/p").unwrap_err();
            assert_eq!((error.code, error.msg), (Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {command}")));
        }
    }

    #[test]
    fn container_ids_and_interface_names_are_validated_where_they_are_used() {
        let table: &[(&str, &str, bool)] = &[
            ("CNI_CONTAINERID", "a", true),
            ("CNI_CONTAINERID", "6988a7347d1d6cb26d64494aaccd920b44206865e4e800b0f53cb2a4b8af62aa", true),
            ("CNI_CONTAINERID", "a_b.c-d", true),
            ("CNI_CONTAINERID", ".hidden", false),
            ("CNI_CONTAINERID", "../../etc", false),
            ("CNI_CONTAINERID", "a/b", false),
            ("CNI_CONTAINERID", "a b", false),
            ("CNI_CONTAINERID", "a\n", false),
            ("CNI_CONTAINERID", "\u{e4}", false),
            ("CNI_IFNAME", "eth0", true),
            ("CNI_IFNAME", "123456789012345", true),
            ("CNI_IFNAME", "1234567890123456", false),
            ("CNI_IFNAME", "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}", false),
            ("CNI_IFNAME", ".", false),
            ("CNI_IFNAME", "..", false),
            ("CNI_IFNAME", "a/b", false),
            ("CNI_IFNAME", "a:b", false),
            ("CNI_IFNAME", "a b", false),
            ("CNI_IFNAME", "a\tb", false),
        ];
        for (name, value, valid) in table {
            for command in ["ADD", "CHECK", "DEL"] {
                match with(command, name, value) {
                    Ok(_) => assert!(valid, "{command} {name}={value:?}"),
                    Err(error) => {
                        assert!(!valid, "{command} {name}={value:?}: {error}");
                        assert_eq!(error.code, Code::InvalidEnvironment);
                        assert!(error.details.contains(name), "{error}");
                    }
                }
            }
            for command in ["GC", "STATUS", "VERSION"] {
                assert!(with(command, name, value).is_ok(), "{command} {name}={value:?}");
            }
        }
    }

    #[test]
    fn the_override_is_1_or_true_in_any_case() {
        for (value, expected) in
            [("1", true), ("TRUE", true), ("True", true), ("true", true), ("0", false), ("", false), ("yes", false)]
        {
            let environment = with("ADD", "CNI_NETNS_OVERRIDE", value).unwrap().unwrap();
            assert_eq!(environment.netns_override, expected, "{value:?}");
        }
    }

    #[test]
    fn args_are_read_leniently() {
        let args = Args::parse(";;IgnoreUnknown=1;K8S_POD_NAME=a;nonsense;=x;E=;B64=eA==;K8S_POD_NAME=b;");
        assert_eq!(args.get("K8S_POD_NAME"), Some("b"));
        assert_eq!(args.get("IgnoreUnknown"), Some("1"));
        assert_eq!(args.get("B64"), Some("eA=="));
        assert_eq!(args.get("E"), Some(""));
        assert_eq!(args.get("nonsense"), None);
        assert_eq!(args.get(""), None);
        assert_eq!(Args::parse(""), Args::default());
    }
}
