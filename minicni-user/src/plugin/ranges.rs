//! Address pools, out of the plugin's own keys, the `ipam` object that other plugins have, or what the runtime asks for.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::config::{bad, invalid, present};
use crate::{
    cni::{CniError, Code, IpRange},
    ipam::{IpamError, Range, RangeSet},
};

/// The IPAM plugin whose keys we understand: <https://www.cni.dev/plugins/current/ipam/host-local/>
const HOST_LOCAL: &str = "host-local";

/// The pools of the configuration, to take one address of each; none where the node's pod CIDRs are to say them.
pub(super) fn configured(raw: &Map<String, Value>) -> Result<Vec<RangeSet>, CniError> {
    let sets = match ipam(raw)? {
        Some(ipam) if !has_pools(raw) => pools(ipam, "ipam.")?,
        _ => pools(raw, "")?,
    };
    one_of_each_family(&sets, "ranges")?;
    Ok(sets)
}

/// The pools that a runtime asks for (`runtimeConfig.ipRanges`).
pub(super) fn of_runtime(lists: &[Vec<IpRange>]) -> Result<Vec<RangeSet>, CniError> {
    const KEY: &str = "runtimeConfig.ipRanges";
    let range = |range: &IpRange| Range::new(range.subnet, range.range_start, range.range_end, range.gateway);
    let set = |list: &Vec<IpRange>| RangeSet::new(list.iter().map(range).collect::<Result<_, _>>()?);
    let sets: Vec<_> = lists.iter().map(set).collect::<Result<_, _>>().map_err(|error: IpamError| bad(KEY, &error))?;
    one_of_each_family(&sets, KEY)?;
    Ok(sets)
}

/// The pools of a node: one for each family among its pod CIDRs, in their order.
pub(super) fn of_cidrs(cidrs: &[IpNet]) -> Result<Vec<RangeSet>, IpamError> {
    let mut families: Vec<Vec<Range>> = Vec::new();
    for cidr in cidrs {
        let range = Range::new(*cidr, None, None, None)?;
        let same =
            |ranges: &&mut Vec<Range>| ranges.iter().any(|other| other.start().is_ipv4() == cidr.addr().is_ipv4());
        match families.iter_mut().find(same) {
            Some(ranges) => ranges.push(range),
            None => families.push(vec![range]),
        }
    }
    families.into_iter().map(RangeSet::new).collect()
}

/// The object of another plugin's configuration.
pub(super) fn ipam(raw: &Map<String, Value>) -> Result<Option<&Map<String, Value>>, CniError> {
    let Some(value) = present(raw, "ipam") else { return Ok(None) };
    let ipam = value.as_object().ok_or_else(|| invalid("ipam", value, "an object"))?;
    match present(ipam, "type") {
        Some(kind) if kind != HOST_LOCAL && !has_pools(raw) => Err(CniError::new(
            Code::UnsupportedField,
            format!("ipam.type is {kind}; minicni keeps the addresses itself and understands the keys of {HOST_LOCAL}"),
        )),
        _ => Ok(Some(ipam)),
    }
}

fn has_pools(keys: &Map<String, Value>) -> bool {
    present(keys, "subnet").is_some() || present(keys, "ranges").is_some()
}

/// `subnet`, a prefix, or `ranges`, a list of lists.
fn pools(keys: &Map<String, Value>, path: &str) -> Result<Vec<RangeSet>, CniError> {
    let sets: Vec<_> = match (present(keys, "subnet"), present(keys, "ranges")) {
        (None, None) => Vec::new(),
        (Some(subnet), Some(_)) => {
            return Err(invalid(&format!("{path}subnet"), subnet, "absent where there is ranges"));
        }
        (Some(_), None) => {
            let range = range(keys, path)?;
            vec![RangeSet::new(vec![range]).map_err(|error| bad(&format!("{path}subnet"), &error))?]
        }
        (None, Some(ranges)) => {
            let path = format!("{path}ranges");
            let lists = ranges.as_array().filter(|lists| !lists.is_empty());
            let lists = lists.ok_or_else(|| invalid(&path, ranges, "a list of lists of ranges"))?;
            let set = |(index, list)| range_set(list, &format!("{path}[{index}]"));
            lists.iter().enumerate().map(set).collect::<Result<_, _>>()?
        }
    };
    RangeSet::check_disjoint(&sets).map_err(|error| bad(&format!("{path}ranges"), &error))?;
    Ok(sets)
}

fn one_of_each_family(sets: &[RangeSet], path: &str) -> Result<(), CniError> {
    for (index, set) in sets.iter().enumerate() {
        if let Some(first) = sets[..index].iter().position(|other| other.is_ipv6() == set.is_ipv6()) {
            let msg = format!("{path}[{index}] is of the address family of {path}[{first}]: {set}");
            return Err(CniError::new(Code::UnsupportedField, msg)
                .details("a pod has one address of each family; put the ranges of one family into one list"));
        }
    }
    Ok(())
}

fn range_set(list: &Value, path: &str) -> Result<RangeSet, CniError> {
    let ranges = list.as_array().ok_or_else(|| invalid(path, list, "a list of ranges"))?;
    let ranges = ranges
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let path = format!("{path}[{index}]");
            let fields = value.as_object().ok_or_else(|| invalid(&path, value, "an object with subnet"))?;
            range(fields, &format!("{path}."))
        })
        .collect::<Result<_, _>>()?;
    RangeSet::new(ranges).map_err(|error| bad(path, &error))
}

fn range(fields: &Map<String, Value>, path: &str) -> Result<Range, CniError> {
    let key = |key: &str| format!("{path}{key}");
    let address = |name: &str| -> Result<Option<IpAddr>, CniError> {
        let Some(value) = present(fields, name) else { return Ok(None) };
        match value.as_str().and_then(|text| text.parse().ok()) {
            Some(address) => Ok(Some(address)),
            None => Err(invalid(&key(name), value, "an address")),
        }
    };
    let subnet = present(fields, "subnet").unwrap_or(&Value::Null);
    let subnet = prefix(subnet, &key("subnet"))?;
    let range = Range::new(subnet, address("rangeStart")?, address("rangeEnd")?, address("gateway")?);
    let range = range.map_err(|error| bad(&key("subnet"), &error))?;
    range.excluding(excluded(fields, path)?).map_err(|error| bad(&key("exclude"), &error))
}

/// `exclude`, a list of addresses and prefixes.
fn excluded(fields: &Map<String, Value>, path: &str) -> Result<Vec<IpNet>, CniError> {
    let Some(value) = present(fields, "exclude") else { return Ok(Vec::new()) };
    let key = format!("{path}exclude");
    let list = value.as_array().ok_or_else(|| invalid(&key, value, "a list of addresses and prefixes"))?;
    let item = |value: &Value| {
        let text = value.as_str()?;
        text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
    };
    list.iter().map(|value| item(value).ok_or_else(|| invalid(&key, value, "an address or a prefix"))).collect()
}

fn prefix(value: &Value, path: &str) -> Result<IpNet, CniError> {
    let subnet = value.as_str().and_then(|text| text.parse().ok());
    subnet.ok_or_else(|| invalid(path, value, "a prefix such as 10.244.1.0/24"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(keys: &Value) -> Result<Vec<String>, CniError> {
        Ok(configured(keys.as_object().unwrap())?.iter().map(RangeSet::to_string).collect())
    }

    #[test]
    fn pools_come_from_subnet_or_ranges_at_the_top_or_in_ipam() {
        let four = "10.1.0.0/24 (10.1.0.1 to 10.1.0.254)";
        let six = "fd00:1::/64 (fd00:1::1 to fd00:1::ffff:ffff:ffff:ffff)";
        let lists = json!([[{"subnet": "fd00:1::/64"}], [{"subnet": "10.1.0.0/24"}]]);
        let table = [
            (json!({"subnet": "10.1.0.0/24"}), vec![four]),
            (json!({"subnet": "fd00:1::/64"}), vec![six]),
            (json!({"ranges": lists}), vec![six, four]),
            (json!({"ipam": {"type": "host-local", "ranges": lists}}), vec![six, four]),
            (json!({"ipam": {"subnet": "10.1.0.0/24"}}), vec![four]),
            (json!({"subnet": "10.1.0.0/24", "ipam": {"type": "dhcp"}}), vec![four]),
            (json!({"subnet": "10.1.0.0/24", "ipam": {"ranges": lists}}), vec![four]),
            (
                json!({"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}}),
                vec!["10.1.0.0/24 (10.1.0.9 to 10.1.0.9)"],
            ),
            (json!({"ipam": {"type": "host-local"}}), vec![]),
            (json!({}), vec![]),
        ];
        for (keys, expected) in table {
            assert_eq!(read(&keys).unwrap(), expected, "{keys}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key_and_itself() {
        let table = [
            (json!({"subnet": "10.0.0.0/33"}), "subnet is \"10.0.0.0/33\""),
            (json!({"subnet": 5}), "subnet is 5"),
            (json!({"subnet": "10.0.0.1/24"}), "10.0.0.0/24"),
            (json!({"subnet": "10.0.0.0/31"}), "10.0.0.0/31"),
            (json!({"subnet": "fd00::/128"}), "fd00::/128"),
            (json!({"ranges": {}}), "ranges is {}"),
            (json!({"ranges": [5]}), "ranges[0] is 5"),
            (json!({"ranges": [[{}]]}), "ranges[0][0].subnet is null"),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "x"}]]}), "ranges[0][0].rangeStart is \"x\""),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]}), "10.0.1.1"),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.128/25"}]]}), "ranges[0]"),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}), "ranges[0]"),
            (
                json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]}),
                "ranges[1] is of the address",
            ),
            (json!({"subnet": "10.0.0.0/24", "ranges": [[{"subnet": "10.1.0.0/24"}]]}), "subnet is \"10.0.0.0/24\""),
            (json!({"subnet": "10.0.0.0/24", "exclude": "10.0.0.5"}), "exclude is \"10.0.0.5\""),
            (json!({"subnet": "10.0.0.0/24", "exclude": ["ten"]}), "exclude is \"ten\""),
            (json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.1.5"]}), "exclude: "),
            (json!({"ipam": 5}), "ipam is 5"),
            (json!({"ipam": {"type": "dhcp"}}), "ipam.type is \"dhcp\""),
            (json!({"ipam": {"subnet": "x"}}), "ipam.subnet is \"x\""),
        ];
        for (keys, expected) in table {
            let error = read(&keys).unwrap_err();
            assert!(error.msg.contains(expected), "{keys}: {}", error.msg);
            assert!(matches!(error.code, Code::InvalidConfig | Code::UnsupportedField), "{keys}: {error:?}");
        }
    }

    #[test]
    fn a_node_has_a_pool_for_each_family_in_the_order_of_its_prefixes() {
        let cidrs: Vec<IpNet> =
            ["fd00::/64", "10.1.0.0/24", "10.2.0.0/24"].iter().map(|cidr| cidr.parse().unwrap()).collect();
        let sets = of_cidrs(&cidrs).unwrap();
        assert_eq!(sets.iter().map(|set| set.ranges().len()).collect::<Vec<_>>(), [1, 2]);
        assert!(sets[0].is_ipv6() && !sets[1].is_ipv6());
        assert!(of_cidrs(&[]).unwrap().is_empty());
    }

    #[test]
    fn excluded_addresses_and_prefixes_are_not_in_the_pool() {
        let keys = json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.0.7", "10.0.0.128/25"]});
        let sets = configured(keys.as_object().unwrap()).unwrap();
        let contains = |address: &str| sets[0].contains(address.parse().unwrap());
        assert!(contains("10.0.0.6") && !contains("10.0.0.7") && !contains("10.0.0.200"));
    }
}
