//! The plugin's own keys of the network configuration.

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::{
    cni::{CniError, Code, NetConf},
    datapath::{DatapathError, Pins, Programs},
    ipam::{Range, RangeSet, Store},
    node::{DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, Datapath, Facts, Mode, Settings, StateDir, boot_id},
};

/// How long an address rests after its release while others are free: conntrack's longest memory of an unanswered
/// connection.
const DEFAULT_COOLDOWN: Duration = Duration::from_mins(2);
/// The MTU where neither the configuration nor a daemon says one.
const DEFAULT_MTU: u32 = 1500;
/// What IPv4 asks of every link (RFC 791), and the most that an IPv4 packet can have.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65_535;

/// What the configuration says, checked.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) state: StateDir,
    pub(super) pins: Pins,
    pub(super) datapath: Datapath,
    pub(super) network: String,
    cooldown: Duration,
    mtu: Option<u32>,
    /// Empty where the daemon's node file is to say them.
    ranges: Vec<RangeSet>,
}

impl Config {
    /// Reads the plugin's keys; an error names the key and its value.
    pub(super) fn new(config: &NetConf) -> Result<Self, CniError> {
        Self::from_keys(&config.name, &config.raw)
    }

    fn from_keys(network: &str, raw: &Map<String, Value>) -> Result<Self, CniError> {
        let mut this = Self::directories(network, raw)?;
        if let Some(bridge) = present(raw, "bridge") {
            eprintln!("minicni: bridge {bridge} is ignored: pods are routed, there is no bridge");
        }
        this.datapath = parsed(raw, "datapath")?.unwrap_or_default();
        this.mtu = match present(raw, "mtu") {
            None => None,
            // 0 is how several plugins say "choose one".
            Some(value) => match value.as_u64().and_then(|mtu| u32::try_from(mtu).ok()) {
                Some(0) => None,
                Some(mtu) if MTU_RANGE.contains(&mtu) => Some(mtu),
                _ => return Err(invalid("mtu", value, "a number of bytes from 68 to 65535")),
            },
        };
        this.cooldown = match present(raw, "cooldown") {
            None => DEFAULT_COOLDOWN,
            Some(value) => {
                Duration::from_secs(value.as_u64().ok_or_else(|| invalid("cooldown", value, "a number of seconds"))?)
            }
        };
        this.ranges = ranges(raw)?;
        Ok(this)
    }

    /// As [`Config::new`], but what cannot be read counts as absent: DEL has to clean up all the same.
    pub(super) fn lenient(config: &NetConf) -> Self {
        Self::new(config)
            .or_else(|_| Self::directories(&config.name, &config.raw))
            .unwrap_or_else(|_| Self::defaults(&config.name))
    }

    fn directories(network: &str, raw: &Map<String, Value>) -> Result<Self, CniError> {
        let defaults = Self::defaults(network);
        let directory = |key| match present(raw, key) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
                _ => Err(invalid(key, value, "an absolute path")),
            },
        };
        Ok(Self {
            state: directory("stateDir")?.map_or(defaults.state, StateDir::new),
            pins: directory("bpfDir")?.map_or(defaults.pins, |dir| Pins::new(&dir)),
            ..Self::defaults(network)
        })
    }

    fn defaults(network: &str) -> Self {
        Self {
            state: StateDir::new(DEFAULT_STATE_DIR),
            pins: Pins::new(DEFAULT_BPF_DIR.as_ref()),
            datapath: Datapath::Auto,
            network: network.to_owned(),
            cooldown: DEFAULT_COOLDOWN,
            mtu: None,
            ranges: Vec::new(),
        }
    }

    /// The pools to take one address of each: the configuration's, or else the node's pod CIDRs.
    pub(super) fn ranges(&self, facts: Option<&Facts>) -> Result<Vec<RangeSet>, CniError> {
        if !self.ranges.is_empty() {
            return Ok(self.ranges.clone());
        }
        let cidrs: Vec<_> = facts.into_iter().flat_map(|facts| &facts.pod_cidrs).filter(|cidr| is_v4(cidr)).collect();
        if cidrs.is_empty() {
            let file = self.state.facts();
            return Err(CniError::new(
                Code::NotAvailable,
                format!(
                    "the configuration has neither subnet nor ranges, and {} names no IPv4 pod CIDR",
                    file.display()
                ),
            )
            .details("minicnid writes that file once it knows the node's pod CIDR; is it running?"));
        }
        cidrs.into_iter().map(|cidr| Ok(RangeSet::new(vec![Range::new(*cidr, None, None, None)?])?)).collect()
    }

    /// The MTU of the pod's interface in bytes.
    pub(super) fn mtu(&self, facts: Option<&Facts>) -> u32 {
        self.mtu.or_else(|| facts?.mtu).unwrap_or(DEFAULT_MTU)
    }

    /// How the plugin prepares a node that no daemon has prepared.
    pub(super) fn settings(&self) -> Settings {
        Settings { datapath: self.datapath, ebpf_log_level: 0, ipv6: false }
    }

    /// Whether the node has no fast path, and this network can do without.
    pub(super) fn routes_only(&self, facts: Option<&Facts>) -> bool {
        self.datapath == Datapath::Auto && facts.is_some_and(|facts| matches!(facts.datapath, Mode::Route { .. }))
    }

    /// The pinned programs, or `None` where nobody loaded them since boot.
    pub(super) fn opened(&self) -> Result<Option<Programs>, DatapathError> {
        match self.pins.open_programs() {
            Ok(programs) => Ok(Some(programs)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The network's leases. Makes the directory.
    pub(super) fn store(&self) -> Result<Store, CniError> {
        Ok(Store::open(&self.state.ipam(&self.network), &boot_id()?, self.cooldown)?)
    }

    /// The network's leases, or `None` where there was none in this boot. Changes nothing.
    pub(super) fn existing_store(&self) -> Result<Option<Store>, CniError> {
        Ok(Store::existing(&self.state.ipam(&self.network), &boot_id()?, self.cooldown))
    }
}

fn is_v4(cidr: &IpNet) -> bool {
    matches!(cidr, IpNet::V4(_))
}

/// `subnet`, a prefix, or `ranges`, host-local's list of lists.
fn ranges(raw: &Map<String, Value>) -> Result<Vec<RangeSet>, CniError> {
    let sets = match (present(raw, "subnet"), present(raw, "ranges")) {
        (None, None) => Vec::new(),
        (Some(subnet), Some(_)) => {
            return Err(invalid("subnet", subnet, "absent where there is ranges"));
        }
        (Some(subnet), None) => vec![
            RangeSet::new(vec![range(subnet_field(subnet, "subnet")?, &Map::new(), "")?])
                .map_err(|error| bad("subnet", &error))?,
        ],
        (None, Some(ranges)) => {
            let lists = ranges.as_array().filter(|lists| !lists.is_empty());
            let lists = lists.ok_or_else(|| invalid("ranges", ranges, "a list of lists of ranges"))?;
            lists.iter().enumerate().map(|(index, list)| range_set(list, index)).collect::<Result<_, _>>()?
        }
    };
    RangeSet::check_disjoint(&sets).map_err(|error| bad("ranges", &error))?;
    if sets.len() > 1 {
        return Err(CniError::new(
            Code::UnsupportedField,
            format!("ranges has {} lists; one address family, so one list, is supported", sets.len()),
        ));
    }
    Ok(sets)
}

fn range_set(list: &Value, index: usize) -> Result<RangeSet, CniError> {
    let path = format!("ranges[{index}]");
    let ranges = list.as_array().ok_or_else(|| invalid(&path, list, "a list of ranges"))?;
    let ranges = ranges
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let path = format!("{path}[{index}]");
            let fields = value.as_object().ok_or_else(|| invalid(&path, value, "an object with subnet"))?;
            let subnet_path = format!("{path}.subnet");
            let subnet = present(fields, "subnet").ok_or_else(|| invalid(&subnet_path, &Value::Null, "a prefix"))?;
            range(subnet_field(subnet, &subnet_path)?, fields, &format!("{path}."))
        })
        .collect::<Result<_, _>>()?;
    RangeSet::new(ranges).map_err(|error| bad(&path, &error))
}

fn range(subnet: IpNet, fields: &Map<String, Value>, path: &str) -> Result<Range, CniError> {
    let address = |key: &str| -> Result<Option<IpAddr>, CniError> {
        let Some(value) = present(fields, key) else { return Ok(None) };
        match value.as_str().and_then(|text| text.parse().ok()) {
            Some(address) => Ok(Some(address)),
            None => Err(invalid(&format!("{path}{key}"), value, "an address")),
        }
    };
    let range = Range::new(subnet, address("rangeStart")?, address("rangeEnd")?, address("gateway")?);
    range.map_err(|error| bad(&format!("{path}subnet"), &error))
}

fn subnet_field(value: &Value, path: &str) -> Result<IpNet, CniError> {
    let subnet: Option<IpNet> = value.as_str().and_then(|text| text.parse().ok());
    match subnet {
        None => Err(invalid(path, value, "a prefix such as 10.244.1.0/24")),
        Some(subnet) if !is_v4(&subnet) => {
            Err(CniError::new(Code::UnsupportedField, format!("{path} {subnet} is IPv6; IPv4 alone is supported")))
        }
        Some(subnet) => Ok(subnet),
    }
}

fn parsed<T: FromStr<Err = String>>(raw: &Map<String, Value>, key: &str) -> Result<Option<T>, CniError> {
    let Some(value) = present(raw, key) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| invalid(key, value, "a string"))?;
    text.parse().map(Some).map_err(|why| CniError::new(Code::InvalidConfig, format!("{key}: {why}")))
}

fn present<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

fn invalid(key: &str, value: &Value, expected: &str) -> CniError {
    CniError::new(Code::InvalidConfig, format!("{key} is {value}; it must be {expected}"))
}

fn bad(key: &str, error: &dyn std::fmt::Display) -> CniError {
    CniError::new(Code::InvalidConfig, format!("{key}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(keys: &Value) -> Result<Config, CniError> {
        Config::from_keys("pods", keys.as_object().unwrap())
    }

    #[test]
    fn the_ancestors_configuration_works_as_it_is() {
        let config = read(&json!({"mtu": 1400, "subnet": "10.244.1.0/24", "bridge": "cni0"})).unwrap();
        assert_eq!(config.mtu(None), 1400);
        assert_eq!(config.ranges(None).unwrap()[0].to_string(), "10.244.1.0/24 (10.244.1.1 to 10.244.1.254)");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key_and_itself() {
        let cases = [
            (json!({"subnet": "10.0.0.0/33"}), "subnet is \"10.0.0.0/33\""),
            (json!({"subnet": 5}), "subnet is 5"),
            (json!({"subnet": "10.0.0.1/24"}), "10.0.0.0/24"),
            (json!({"subnet": "10.0.0.0/31"}), "10.0.0.0/31"),
            (json!({"subnet": "10.0.0.0/32"}), "10.0.0.0/32"),
            (json!({"subnet": "fd00::/64"}), "subnet fd00::/64 is IPv6"),
            (json!({"mtu": 67}), "mtu is 67"),
            (json!({"mtu": "big"}), "mtu is \"big\""),
            (json!({"datapath": "fast"}), "datapath: \"fast\""),
            (json!({"stateDir": "run"}), "stateDir is \"run\""),
            (json!({"bpfDir": 1}), "bpfDir is 1"),
            (json!({"cooldown": -1}), "cooldown is -1"),
            (json!({"ranges": {}}), "ranges is {}"),
            (json!({"ranges": [5]}), "ranges[0] is 5"),
            (json!({"ranges": [[{}]]}), "ranges[0][0].subnet is null"),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "x"}]]}), "ranges[0][0].rangeStart is \"x\""),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]}), "10.0.1.1"),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.128/25"}]]}), "ranges[0]"),
            (json!({"subnet": "10.0.0.0/24", "ranges": [[{"subnet": "10.1.0.0/24"}]]}), "subnet is \"10.0.0.0/24\""),
        ];
        for (keys, expected) in cases {
            let error = read(&keys).unwrap_err();
            assert!(error.msg.contains(expected), "{keys}: {}", error.msg);
            assert!(matches!(error.code, Code::InvalidConfig | Code::UnsupportedField), "{keys}: {error:?}");
        }
    }

    #[test]
    fn without_ranges_the_nodes_pod_cidr_counts_and_its_absence_is_said() {
        let config = read(&json!({})).unwrap();
        assert!(config.ranges(None).unwrap_err().msg.contains("/run/minicni/node.json"));
    }
}
