//! What the runtime asks of one ADD beyond the configuration.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::fields::{Fields, invalid};
use super::{Args, CniError, Code, Dns, Request};

/// What the runtime asks for. Each part comes from the strongest source that says anything about it:
/// [`runtimeConfig`](https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md), then `args.cni` of the
/// configuration, then `CNI_ARGS`. The weaker ones are not looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Requested {
    /// Addresses asked for, in order, without duplicates: `runtimeConfig.ips`, `args.cni.ips`, `IP`.
    pub ips: Vec<IpAddr>,
    /// The hardware address of the container's interface, neither zero nor multicast: `runtimeConfig.mac`, `args.cni.mac`,
    /// `MAC`.
    pub mac: Option<[u8; 6]>,
    /// `runtimeConfig.dns`; empty where there is none.
    pub dns: Dns,
    /// `runtimeConfig.bandwidth` limits at least one direction.
    pub bandwidth_limited: bool,
    /// The pod's flows are to stay in the stack: its annotation `minicni.io/fast-path`, or `args.cni.fastPath`, is off.
    pub without_fast_path: bool,
    /// The pod may send with any address: its annotation `minicni.io/spoof-check`, or `args.cni.spoofCheck`, is off.
    pub without_spoof_check: bool,
    /// `runtimeConfig.ipRanges`, one list of ranges for each address; empty where there are none.
    pub ip_ranges: Vec<Vec<IpRange>>,
}

/// A range of addresses, as it was written: that it makes sense is for the reader to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpRange {
    /// The subnet; host bits are kept.
    pub subnet: IpNet,
    /// The first address to hand out.
    pub range_start: Option<IpAddr>,
    /// The last address to hand out.
    pub range_end: Option<IpAddr>,
    /// The gateway of the subnet.
    pub gateway: Option<IpAddr>,
}

impl Request {
    /// Reads what the runtime asks for, in the spelling of the conventions, of containerd and of CRI-O.
    ///
    /// Not for DEL, which has to succeed whatever stands there. Errors: code 7 naming field and value, code 4 for
    /// `CNI_ARGS`.
    pub fn requested(&self) -> Result<Requested, CniError> {
        let runtime = Fields::written_in_go(&self.config.runtime_config, "runtimeConfig");
        let args = Fields::written_in_go(&self.config.raw, "").object("args")?;
        let args = args.map(|args| args.object("cni")).transpose()?.flatten();
        let environment = &self.environment.args;

        let mut ips = config_ips(&runtime)?;
        let mut mac = config_mac(&runtime)?;
        if let Some(args) = &args {
            if ips.is_empty() {
                ips = config_ips(args)?;
            }
            if mac.is_none() {
                mac = config_mac(args)?;
            }
        }
        if ips.is_empty() {
            ips = environment_ips(environment)?;
        }
        if mac.is_none() {
            mac = environment_mac(environment)?;
        }
        Ok(Requested {
            ips: without_duplicates(ips),
            mac,
            dns: dns(&runtime)?,
            bandwidth_limited: bandwidth_limited(&runtime)?,
            without_fast_path: is_off(&runtime, args.as_ref(), "minicni.io/fast-path", "fastPath")?,
            without_spoof_check: is_off(&runtime, args.as_ref(), "minicni.io/spoof-check", "spoofCheck")?,
            ip_ranges: ip_ranges(&runtime)?,
        })
    }
}

/// The capability by which containerd and CRI-O pass a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const SWITCH: &str = "\"on\" or \"off\"";
const ADDRESS: &str = "an IP address, with or without prefix length";
const MAC: &str = "six bytes such as 02:00:00:00:00:01, neither all zero nor multicast";

fn config_ips(fields: &Fields) -> Result<Vec<IpAddr>, CniError> {
    let read =
        |(path, item): (String, &Value)| item.as_str().and_then(address).ok_or_else(|| invalid(&path, item, ADDRESS));
    fields.items("ips").into_iter().map(read).collect()
}

fn config_mac(fields: &Fields) -> Result<Option<[u8; 6]>, CniError> {
    fields.typed("mac", MAC, |value| mac(value.as_str()?))
}

fn environment_ips(args: &Args) -> Result<Vec<IpAddr>, CniError> {
    let list = args.get("IP").unwrap_or_default();
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| address(item).ok_or_else(|| invalid_argument("IP", item, ADDRESS))).collect()
}

fn environment_mac(args: &Args) -> Result<Option<[u8; 6]>, CniError> {
    let text = args.get("MAC").filter(|text| !text.is_empty());
    text.map(|text| mac(text).ok_or_else(|| invalid_argument("MAC", text, MAC))).transpose()
}

fn invalid_argument(key: &str, value: &str, expected: &str) -> CniError {
    let error = invalid(&format!("{key} in CNI_ARGS"), &Value::from(value), expected);
    CniError { code: Code::InvalidEnvironment, ..error }
}

/// An IPv4 address inside an IPv6 one is the IPv4 address, as it is for Go.
fn address(text: &str) -> Option<IpAddr> {
    let address = text.parse().or_else(|_| text.parse::<IpNet>().map(|prefix| prefix.addr())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let byte = |digits: &str| {
        let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        hexadecimal.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(separator).map(byte).collect();
    let bytes: [u8; 6] = bytes?.try_into().ok()?;
    let multicast = bytes[0] & 1 == 1;
    (bytes != [0; 6] && !multicast).then_some(bytes)
}

/// Whether a pod is exempt from something, by an annotation of its or else by the configuration.
fn is_off(runtime: &Fields, args: Option<&Fields>, annotation: &str, key: &str) -> Result<bool, CniError> {
    let annotations = runtime.object(ANNOTATIONS)?;
    let by_pod = annotations.map(|fields| fields.typed(annotation, SWITCH, off)).transpose()?.flatten();
    let by_args = args.map(|fields| fields.typed(key, SWITCH, off)).transpose()?.flatten();
    Ok(by_pod.or(by_args).unwrap_or(false))
}

fn off(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(!on),
        Value::String(text) if text == "on" || text == "true" => Some(false),
        Value::String(text) if text == "off" || text == "false" => Some(true),
        _ => None,
    }
}

fn without_duplicates(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut unique = Vec::with_capacity(ips.len());
    for ip in ips {
        if !unique.contains(&ip) {
            unique.push(ip);
        }
    }
    unique
}

fn dns(runtime: &Fields) -> Result<Dns, CniError> {
    let Some(fields) = runtime.object("dns")? else { return Ok(Dns::default()) };
    // The conventions' name, and containerd's.
    let either = |key: &str, other: &str| {
        let list = texts(&fields, key)?;
        if list.is_empty() { texts(&fields, other) } else { Ok(list) }
    };
    Ok(Dns {
        nameservers: either("nameservers", "servers")?,
        domain: fields.string("domain")?.unwrap_or_default().to_owned(),
        search: either("search", "searches")?,
        options: texts(&fields, "options")?,
    })
}

fn texts(fields: &Fields, key: &str) -> Result<Vec<String>, CniError> {
    let read = |(path, item): (String, &Value)| {
        item.as_str().map(str::to_owned).ok_or_else(|| invalid(&path, item, "a string"))
    };
    fields.items(key).into_iter().map(read).collect()
}

/// Rates are in bits per second, bursts in bits; a burst alone limits nothing.
fn bandwidth_limited(runtime: &Fields) -> Result<bool, CniError> {
    let Some(fields) = runtime.object("bandwidth")? else { return Ok(false) };
    let number = |key: &str| fields.typed(key, "a number", Value::as_f64);
    number("ingressBurst")?;
    number("egressBurst")?;
    let rates = [number("ingressRate")?, number("egressRate")?];
    Ok(rates.into_iter().flatten().any(|rate| rate > 0.0))
}

/// The conventions and CRI-O have a list of ranges for each address, containerd one flat list. In that, each family is
/// for one address, in the order in which they come.
fn ip_ranges(runtime: &Fields) -> Result<Vec<Vec<IpRange>>, CniError> {
    let items = runtime.items("ipRanges");
    let sets = if items.iter().any(|(_, item)| item.is_array()) {
        items.iter().map(|(path, item)| ip_range_set(runtime, item, path)).collect::<Result<_, _>>()?
    } else {
        let ranges: Vec<_> =
            items.iter().map(|(path, item)| ip_range(runtime, item, path)).collect::<Result<_, _>>()?;
        let family = ranges.first().map(|range| range.subnet.addr().is_ipv4());
        let (first, second) = ranges.into_iter().partition(|range| Some(range.subnet.addr().is_ipv4()) == family);
        vec![first, second]
    };
    Ok(sets.into_iter().filter(|set: &Vec<_>| !set.is_empty()).collect())
}

fn ip_range_set(runtime: &Fields, value: &Value, path: &str) -> Result<Vec<IpRange>, CniError> {
    let ranges = value.as_array().ok_or_else(|| invalid(path, value, "a list of ranges, as the others"))?;
    let ranges = ranges.iter().enumerate().filter(|(_, range)| !range.is_null());
    ranges.map(|(index, range)| ip_range(runtime, range, &format!("{path}[{index}]"))).collect()
}

fn ip_range(runtime: &Fields, value: &Value, path: &str) -> Result<IpRange, CniError> {
    let fields = runtime.inner(value, path)?;
    let address = |key: &str| fields.parsed(key, "an IP address");
    let subnet = fields.parsed("subnet", "a prefix such as 10.244.1.0/24")?;
    Ok(IpRange {
        subnet: fields.required("subnet", subnet)?,
        range_start: address("rangeStart")?,
        range_end: address("rangeEnd")?,
        gateway: address("gateway")?,
    })
}
