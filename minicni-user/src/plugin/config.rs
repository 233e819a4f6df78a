//! The plugin's own keys of the network configuration.

use std::{path::PathBuf, str::FromStr, time::Duration};

use serde_json::{Map, Value};

use super::{
    pod::{PodRoute, gateway},
    ranges,
};
use crate::{
    cni::{CniError, Code, IpRange, NetConf, Route},
    datapath::{DatapathError, Pins, Programs},
    ipam::{RangeSet, Store},
    node::{DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, Datapath, Facts, Mode, Settings, StateDir, boot_id},
};

/// How long an address rests after its release while others are free: conntrack's longest memory of an unanswered
/// connection.
const DEFAULT_COOLDOWN: Duration = Duration::from_mins(2);
/// The MTU where neither the configuration nor a daemon says one.
const DEFAULT_MTU: u32 = 1500;
/// What IPv6 asks of every link.
const MIN_MTU_IPV6: u32 = 1280;
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
    /// Further routes of the pods, beside the default ones.
    pub(super) routes: Vec<PodRoute>,
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
        this.ranges = ranges::configured(raw)?;
        this.routes = routes(raw)?;
        Ok(this)
    }

    /// As [`Config::new`], but what cannot be read counts as absent: DEL has to clean up all the same.
    pub(super) fn lenient(config: &NetConf) -> Self {
        Self::new(config).unwrap_or_else(|_| {
            let defaults = Self::defaults(&config.name);
            // One that cannot be read keeps nobody from finding what is in the other.
            let readable = |key| directory(&config.raw, key).ok().flatten();
            Self {
                state: readable("stateDir").map_or(defaults.state, StateDir::new),
                pins: readable("bpfDir").map_or(defaults.pins, |dir| Pins::new(&dir)),
                ..Self::defaults(&config.name)
            }
        })
    }

    fn directories(network: &str, raw: &Map<String, Value>) -> Result<Self, CniError> {
        let defaults = Self::defaults(network);
        Ok(Self {
            state: directory(raw, "stateDir")?.map_or(defaults.state, StateDir::new),
            pins: directory(raw, "bpfDir")?.map_or(defaults.pins, |dir| Pins::new(&dir)),
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
            routes: Vec::new(),
        }
    }

    /// The pools to take one address of each: those that the runtime asks for, or else the configuration's, or else the
    /// node's pod CIDRs.
    pub(super) fn ranges(&self, facts: Option<&Facts>, asked_for: &[Vec<IpRange>]) -> Result<Vec<RangeSet>, CniError> {
        let sets = if !asked_for.is_empty() {
            ranges::of_runtime(asked_for)?
        } else if !self.ranges.is_empty() {
            self.ranges.clone()
        } else {
            ranges::of_cidrs(facts.map_or(&[], |facts| &facts.pod_cidrs))?
        };
        if sets.is_empty() {
            let file = self.state.facts();
            let msg =
                format!("the configuration has neither subnet nor ranges, and {} names no pod CIDR", file.display());
            return Err(CniError::new(Code::NotAvailable, msg)
                .details("minicnid writes that file once it knows the node's pod CIDR; is it running?"));
        }
        for route in &self.routes {
            if !sets.iter().any(|set| set.is_ipv6() == route.destination.addr().is_ipv6()) {
                let msg = format!("routes has {}, and no pool is of its address family", route.destination);
                return Err(CniError::new(Code::InvalidConfig, msg));
            }
        }
        Ok(sets)
    }

    /// The MTU of a pod's interface in bytes.
    pub(super) fn mtu(&self, facts: Option<&Facts>, ipv6: bool) -> Result<u32, CniError> {
        let mtu = self.mtu.or_else(|| facts?.mtu).unwrap_or(DEFAULT_MTU);
        if ipv6 && mtu < MIN_MTU_IPV6 {
            let msg = format!("mtu is {mtu}; IPv6 asks for at least {MIN_MTU_IPV6} (RFC 8200, section 5)");
            return Err(CniError::new(Code::InvalidConfig, msg));
        }
        Ok(mtu)
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

/// The state directory of a network, `None` where the configuration does not say it well.
pub(super) fn state(config: &NetConf) -> Option<StateDir> {
    let dir = directory(&config.raw, "stateDir").ok()?;
    Some(StateDir::new(dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into())))
}

fn directory(raw: &Map<String, Value>, key: &str) -> Result<Option<PathBuf>, CniError> {
    match present(raw, key) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
            _ => Err(invalid(key, value, "an absolute path")),
        },
    }
}

/// `routes`, at the top or in `ipam`, as far as they are not the default route.
fn routes(raw: &Map<String, Value>) -> Result<Vec<PodRoute>, CniError> {
    let (value, path) = match (present(raw, "routes"), ranges::ipam(raw)?) {
        (Some(value), _) => (value, "routes"),
        (None, Some(ipam)) => (present(ipam, "routes").unwrap_or(&Value::Null), "ipam.routes"),
        (None, None) => return Ok(Vec::new()),
    };
    if value.is_null() {
        return Ok(Vec::new());
    }
    let list = value.as_array().ok_or_else(|| invalid(path, value, "a list of routes"))?;
    let routes = list.iter().enumerate().map(|(index, value)| route(value, &format!("{path}[{index}]")));
    let further = |route: &Result<PodRoute, _>| !route.as_ref().is_ok_and(|route| route.destination.prefix_len() == 0);
    routes.filter(further).collect()
}

fn route(value: &Value, path: &str) -> Result<PodRoute, CniError> {
    let Route { dst, gw, other } = Route::read(value, path)?;
    let unsupported = |key: &str, value: &dyn std::fmt::Display, why: &str| {
        CniError::new(Code::UnsupportedField, format!("{path}.{key} is {value}; {why}"))
    };
    let gateway = gateway(dst.addr());
    if let Some(gw) = gw.filter(|gw| *gw != gateway && dst.prefix_len() > 0) {
        return Err(unsupported("gw", &gw, &format!("every route of a pod leads through {gateway}; leave it out")));
    }
    let mut mtu = None;
    for (key, value) in other.iter().filter(|(_, value)| !value.is_null()) {
        match (key.as_str(), value.as_u64().and_then(|mtu| u32::try_from(mtu).ok())) {
            ("mtu", Some(bytes)) => mtu = Some(bytes).filter(|bytes| *bytes > 0),
            ("mtu", None) => return Err(invalid(&format!("{path}.mtu"), value, "a number of bytes")),
            ("advmss" | "priority" | "table" | "scope", _) => {
                return Err(unsupported(key, value, "a pod's routes have dst and mtu alone"));
            }
            // What nobody knows is tolerated, as everywhere.
            _ => {}
        }
    }
    Ok(PodRoute { destination: dst, mtu })
}

fn parsed<T: FromStr<Err = String>>(raw: &Map<String, Value>, key: &str) -> Result<Option<T>, CniError> {
    let Some(value) = present(raw, key) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| invalid(key, value, "a string"))?;
    text.parse().map(Some).map_err(|why| CniError::new(Code::InvalidConfig, format!("{key}: {why}")))
}

pub(super) fn present<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

pub(super) fn invalid(key: &str, value: &Value, expected: &str) -> CniError {
    CniError::new(Code::InvalidConfig, format!("{key} is {value}; it must be {expected}"))
}

pub(super) fn bad(key: &str, error: &dyn std::fmt::Display) -> CniError {
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
        assert_eq!(config.mtu(None, false).unwrap(), 1400);
        assert_eq!(config.ranges(None, &[]).unwrap()[0].to_string(), "10.244.1.0/24 (10.244.1.1 to 10.244.1.254)");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key_and_itself() {
        let cases = [
            (json!({"mtu": 67}), "mtu is 67"),
            (json!({"mtu": "big"}), "mtu is \"big\""),
            (json!({"datapath": "fast"}), "datapath: \"fast\""),
            (json!({"stateDir": "run"}), "stateDir is \"run\""),
            (json!({"bpfDir": 1}), "bpfDir is 1"),
            (json!({"cooldown": -1}), "cooldown is -1"),
            (json!({"routes": 1}), "routes is 1"),
            (json!({"routes": [{"dst": "10.0.0.0"}]}), "invalid routes[0].dst: \"10.0.0.0\""),
            (json!({"routes": [{"dst": "10.0.0.0/8", "gw": "10.0.0.1"}]}), "routes[0].gw is 10.0.0.1"),
            (json!({"routes": [{"dst": "10.0.0.0/8", "table": 0}]}), "routes[0].table is 0"),
            (json!({"routes": [{"dst": "10.0.0.0/8", "mtu": -1}]}), "invalid routes[0].mtu: -1"),
            (json!({"ipam": {"routes": [5]}}), "invalid ipam.routes[0]: 5"),
        ];
        for (keys, expected) in cases {
            let error = read(&keys).unwrap_err();
            assert!(error.msg.contains(expected), "{keys}: {}", error.msg);
            assert!(matches!(error.code, Code::InvalidConfig | Code::UnsupportedField), "{keys}: {error:?}");
        }
    }

    #[test]
    fn the_default_route_is_there_anyway_and_others_lead_the_same_way() {
        let keys = json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
            {"dst": "10.9.0.0/16", "mtu": 1300, "gw": "169.254.1.1", "scope": null, "later": 1}]});
        let destination = "10.9.0.0/16".parse().unwrap();
        assert_eq!(read(&keys).unwrap().routes, [PodRoute { destination, mtu: Some(1300) }]);
        let config = read(&json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "fd00::/8"}]})).unwrap();
        assert!(config.ranges(None, &[]).unwrap_err().msg.contains("fd00::/8"));
    }

    #[test]
    fn an_mtu_that_ipv6_cannot_do_with_is_refused_where_there_is_ipv6() {
        let config = read(&json!({"mtu": 1200})).unwrap();
        assert_eq!(config.mtu(None, false).unwrap(), 1200);
        assert!(config.mtu(None, true).unwrap_err().msg.contains("mtu is 1200"));
    }

    #[test]
    fn without_ranges_the_nodes_pod_cidrs_count_and_their_absence_is_said() {
        let config = read(&json!({})).unwrap();
        assert!(config.ranges(None, &[]).unwrap_err().msg.contains("/run/minicni/node.json"));
        let facts = Facts {
            pod_cidrs: vec!["fd00::/64".parse().unwrap()],
            ..Facts::new(Mode::Route { reason: None }).unwrap()
        };
        assert!(config.ranges(Some(&facts), &[]).unwrap()[0].is_ipv6());
    }
}
