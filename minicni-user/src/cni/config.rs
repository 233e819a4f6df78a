//! The network configuration on standard input.

use serde_json::{Map, Value};

use super::environment::is_identifier;
use super::fields::Fields;
use super::{CniError, Code, Command, Dns, Version};

/// One attachment, as GC lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// The `CNI_CONTAINERID` of its ADD.
    pub container_id: String,
    /// The `CNI_IFNAME` of its ADD.
    pub ifname: String,
}

/// What GC was told about attachments that are still valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidAttachments {
    /// Nothing was said (`cnitool gc` omits the key): no reason to believe that an attachment is stale. Always so for
    /// other commands than GC.
    Absent,
    /// Exactly these are valid. `null` means none, which is what CRI-O sends when no pod runs yet.
    Listed(Vec<Attachment>),
}

/// The network configuration: what the protocol defines, read and checked, and the plugin's own keys.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// `cniVersion`, one that is served and knows the command.
    pub cni_version: Version,
    /// `name` of the network: alphanumerics, `_`, `.`, `-`, the first one alphanumeric.
    pub name: String,
    /// `type`; empty where it is absent.
    pub plugin_type: String,
    /// `prevResult`, an object: the result so far (ADD) or the one of the attachment's ADD (CHECK, DEL). There for CHECK.
    pub prev_result: Option<Value>,
    /// `dns`, to be returned with the result unless it is empty.
    pub dns: Dns,
    /// `runtimeConfig`: values of the capabilities. Read it with [`get_ignore_case`], on every level.
    pub runtime_config: Map<String, Value>,
    /// `cni.dev/valid-attachments`.
    pub valid_attachments: ValidAttachments,
    /// Every key that stands in none of the fields above, the plugin's own ones among them. Values are unchecked.
    pub raw: Map<String, Value>,
}

/// The keys that [`NetConf`] has a field for.
const FIELDS: [&str; 8] =
    ["cniVersion", "name", "type", "prevResult", "dns", "runtimeConfig", VALID_ATTACHMENTS, ATTACHMENTS];
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";
/// What the key was called before the specification was final. libcni sends both
/// (<https://github.com/containernetworking/cni/pull/1101>).
const ATTACHMENTS: &str = "cni.dev/attachments";

impl NetConf {
    /// Checks a decoded configuration, in the order of the reference implementation: name, version, everything else.
    ///
    /// Errors: code 7 naming field and value; 1 and 6 for the version. For DEL only name and version have to be
    /// right: what else is malformed counts as absent, so that an attachment can always be removed.
    pub(super) fn from_map(map: &Map<String, Value>, command: Command) -> Result<NetConf, CniError> {
        let fields = Fields::top(map);
        let name = validated_name(&fields)?;
        let cni_version = Version::negotiate(fields.string("cniVersion")?.unwrap_or_default(), command)?;
        let runtime_config = fields.object("runtimeConfig").map(|fields| fields.map(|fields| fields.to_map()));
        let config = NetConf {
            cni_version,
            name,
            plugin_type: tolerated(command, fields.string("type"))?.unwrap_or_default().to_owned(),
            prev_result: tolerated(command, fields.object("prevResult"))?.map(|prev| Value::Object(prev.to_map())),
            dns: tolerated(command, Dns::read(&fields))?,
            runtime_config: tolerated(command, runtime_config)?.unwrap_or_default(),
            valid_attachments: valid_attachments(map, command)?,
            raw: fields.others(&FIELDS),
        };
        if command == Command::Check && config.prev_result.is_none() {
            return Err(CniError::new(Code::InvalidConfig, "prevResult is missing")
                .details("CHECK verifies an attachment against the result of its ADD"));
        }
        Ok(config)
    }
}

/// The value of `key` in a part of `runtimeConfig`, whatever the case of its letters; a `null` counts as absent.
///
/// Go's JSON decoder, for which the runtimes write, ignores case, and containerd really sends
/// `"portMappings":[{"HostPort":...}]` where the convention says `hostPort`.
pub fn get_ignore_case<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let value = map.get(key).or_else(|| map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v));
    value.filter(|value| !value.is_null())
}

/// Decodes standard input. Errors: code 6.
pub(super) fn decode(bytes: &[u8]) -> Result<Map<String, Value>, CniError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CniError::new(Code::Decode, "the network configuration on stdin is not a JSON object")
            .details(error.to_string())
    })
}

fn validated_name(fields: &Fields) -> Result<String, CniError> {
    let name = fields.string("name")?.unwrap_or_default();
    if name.is_empty() {
        return Err(CniError::new(Code::InvalidConfig, "missing network name"));
    }
    if !is_identifier(name) {
        return Err(CniError::new(Code::InvalidConfig, "invalid characters found in network name")
            .details(format!("name is {name:?}, expected [a-zA-Z0-9][a-zA-Z0-9_.-]*")));
    }
    Ok(name.to_owned())
}

/// A malformed value does not keep DEL from removing the attachment.
fn tolerated<T: Default>(command: Command, read: Result<T, CniError>) -> Result<T, CniError> {
    if command == Command::Del { Ok(read.unwrap_or_default()) } else { read }
}

fn valid_attachments(map: &Map<String, Value>, command: Command) -> Result<ValidAttachments, CniError> {
    let key = [VALID_ATTACHMENTS, ATTACHMENTS].into_iter().find(|key| map.contains_key(*key));
    let Some(key) = key.filter(|_| command == Command::Gc) else { return Ok(ValidAttachments::Absent) };
    let attachments = Fields::top(map).objects(key)?.into_iter().map(|entry| {
        let container_id = entry.required("containerID", entry.string("containerID")?)?.to_owned();
        let ifname = entry.required("ifname", entry.string("ifname")?)?.to_owned();
        Ok(Attachment { container_id, ifname })
    });
    Ok(ValidAttachments::Listed(attachments.collect::<Result<_, CniError>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(command: Command, config: &Value) -> Result<NetConf, CniError> {
        NetConf::from_map(config.as_object().unwrap(), command)
    }

    #[test]
    fn malformed_values_are_named_with_their_field() {
        use Command::{Add, Check, Gc, Status};
        let table: &[(&str, Command, Value, &str)] = &[
            ("R-IN-1", Add, json!({"cniVersion": "1.1.0"}), "missing network name"),
            ("R-IN-1", Gc, json!({"cniVersion": "1.1.0", "name": ""}), "missing network name"),
            ("R-IN-1", Status, json!({"name": null}), "missing network name"),
            ("R-IN-1", Add, json!({"name": "../x"}), "invalid characters found in network name"),
            ("R-IN-1", Add, json!({"name": 5}), "invalid name: 5"),
            ("R-IN-2", Add, json!({"name": "n", "cniVersion": 1.1}), "invalid cniVersion: 1.1"),
            ("types", Add, json!({"name": "n", "cniVersion": "1.1.0", "type": []}), "invalid type: []"),
            ("types", Add, json!({"name": "n", "cniVersion": "1.1.0", "prevResult": "x"}), "invalid prevResult: \"x\""),
            ("types", Add, json!({"name": "n", "cniVersion": "1.1.0", "dns": 1}), "invalid dns: 1"),
            (
                "types",
                Add,
                json!({"name": "n", "cniVersion": "1.1.0", "dns": {"search": [1]}}),
                "invalid dns.search: [1]",
            ),
            (
                "types",
                Add,
                json!({"name": "n", "cniVersion": "1.1.0", "runtimeConfig": [1]}),
                "invalid runtimeConfig: [1]",
            ),
            ("A6", Check, json!({"name": "n", "cniVersion": "1.1.0"}), "prevResult is missing"),
            ("A6", Check, json!({"name": "n", "cniVersion": "1.1.0", "prevResult": null}), "prevResult is missing"),
            (
                "A7",
                Gc,
                json!({"name": "n", "cniVersion": "1.1.0", "cni.dev/valid-attachments": {}}),
                "invalid cni.dev/valid-attachments: {}",
            ),
            (
                "A7",
                Gc,
                json!({"name": "n", "cniVersion": "1.1.0", "cni.dev/attachments": [3]}),
                "invalid cni.dev/attachments[0]: 3",
            ),
            (
                "A7",
                Gc,
                json!({"name": "n", "cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "c"}]}),
                "cni.dev/valid-attachments[0].ifname is missing",
            ),
        ];
        for (rule, command, config, msg) in table {
            let error = parse(*command, config).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, *msg), "{rule}");
        }
    }

    #[test]
    fn a_long_value_is_not_repeated_in_full() {
        let config = json!({"name": "n", "cniVersion": "1.1.0", "type": ["\u{e4}".repeat(10_000)]});
        assert!(parse(Command::Add, &config).unwrap_err().msg.len() < 300);
    }

    #[test]
    fn r_del_2_del_overlooks_whatever_it_can_do_without() {
        let config = json!({"name": "n", "cniVersion": "1.1.0", "type": 1, "prevResult": [], "dns": "x",
            "runtimeConfig": "x", "cni.dev/valid-attachments": 1});
        let config = parse(Command::Del, &config).unwrap();
        assert_eq!((config.prev_result, config.runtime_config, config.dns), (None, Map::new(), Dns::default()));
    }

    #[test]
    fn r_in_5_unknown_keys_and_nulls_are_tolerated() {
        let config = json!({"name": "n", "cniVersion": "0.4.0", "type": "minicni", "capabilities": {"portMappings": true},
            "args": null, "cni.dev/new": 1, "disableCheck": true, "mtu": 1400, "runtimeConfig": null, "prevResult": null,
            "dns": null});
        let config = parse(Command::Add, &config).unwrap();
        assert_eq!(config.cni_version, Version::V0_4_0);
        assert_eq!((config.name.as_str(), config.plugin_type.as_str()), ("n", "minicni"));
        assert_eq!((config.prev_result, config.runtime_config), (None, Map::new()));
        assert_eq!(config.raw.get("mtu"), Some(&json!(1400)));
        assert_eq!(config.raw.get("name"), None);
        assert_eq!(config.raw.get("cni.dev/new"), Some(&json!(1)));
    }

    #[test]
    fn gc_tells_nothing_said_from_nothing_valid() {
        let one = json!([{"containerID": "c", "ifname": "eth0"}]);
        let listed = ValidAttachments::Listed(vec![Attachment { container_id: "c".into(), ifname: "eth0".into() }]);
        let none = ValidAttachments::Listed(vec![]);
        let table = [
            (json!({}), ValidAttachments::Absent),
            (json!({"cni.dev/valid-attachments": null}), none.clone()),
            (json!({"cni.dev/valid-attachments": []}), none.clone()),
            (json!({"cni.dev/attachments": null}), none.clone()),
            (json!({"cni.dev/valid-attachments": one}), listed.clone()),
            (json!({"cni.dev/attachments": one}), listed),
            (json!({"cni.dev/valid-attachments": [], "cni.dev/attachments": one}), none),
        ];
        for (mut config, expected) in table {
            config["name"] = json!("n");
            config["cniVersion"] = json!("1.1.0");
            assert_eq!(parse(Command::Gc, &config).unwrap().valid_attachments, expected, "{config}");
            assert_eq!(parse(Command::Status, &config).unwrap().valid_attachments, ValidAttachments::Absent);
        }
    }

    #[test]
    fn runtime_config_is_found_in_any_case() {
        let containerd = json!({"portMappings": [{"HostPort": 8080}], "bandwidth": null, "hostport": 1, "HOSTPORT": 2});
        let map = containerd.as_object().unwrap();
        assert!(get_ignore_case(map, "portmappings").is_some());
        assert_eq!(get_ignore_case(map, "bandwidth"), None);
        assert_eq!(get_ignore_case(map, "HOSTPORT"), Some(&json!(2)), "the exact spelling wins");
        let entry = get_ignore_case(map, "portMappings").unwrap()[0].as_object().unwrap();
        assert_eq!(get_ignore_case(entry, "hostPort"), Some(&json!(8080)));
        assert_eq!(get_ignore_case(entry, "hostIP"), None);
    }
}
