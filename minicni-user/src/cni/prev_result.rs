//! Reading the result of the plugins before us, or of an attachment's own ADD.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::fields::{Fields, invalid};
use super::{AddResult, CniError, Dns, Interface, Ip, Route};

/// What an error says was expected.
const PREFIX: &str = "an IP address with prefix length, such as 10.0.0.1/24";

impl AddResult {
    /// Reads a `prevResult` of any served version: their shapes can be told apart key by key, so that its own
    /// `cniVersion`, which runtimes may omit, does not matter.
    ///
    /// `ip4` and `ip6` of 0.1.0 and 0.2.0 become entries of `ips` and `routes`; one that is without `ip` has routes alone.
    /// Unknown keys of interfaces, addresses and routes are kept. An address whose `interface` names no entry of
    /// `interfaces` is read as one without. Errors: code 7 naming field and value.
    pub fn from_prev_result(value: &Value) -> Result<AddResult, CniError> {
        let fields = Fields::of(value, "prevResult")?;
        let interfaces: Vec<_> = fields.objects("interfaces")?.iter().map(interface).collect::<Result<_, _>>()?;
        let mut ips: Vec<_> =
            fields.objects("ips")?.iter().map(|fields| ip(fields, interfaces.len())).collect::<Result<_, _>>()?;
        let mut routes: Vec<_> = fields.objects("routes")?.iter().map(route).collect::<Result<_, _>>()?;
        for family in ["ip4", "ip6"] {
            let Some(family) = fields.object(family)? else { continue };
            ips.extend(only_ip(&family)?);
            for fields in family.objects("routes")? {
                routes.push(route(&fields)?);
            }
        }
        Ok(AddResult { interfaces, ips, routes, dns: Dns::read(&fields)? })
    }
}

impl Route {
    /// Reads one route of a configuration, `{"dst", "gw"}` and extras, which stands at `path`.
    ///
    /// Unknown keys are kept, as they are in a result; a `null` is not. Errors: code 7 naming field and value, such as
    /// `routes[0].dst`; also where `dst` has bits beyond its prefix length, which the kernel refuses, and where an extra
    /// that a result knows is not an unsigned number of 32 bits.
    pub fn read(value: &Value, path: &str) -> Result<Route, CniError> {
        let fields = Fields::of(value, path)?;
        let mut route = route(&fields)?;
        if route.dst != route.dst.trunc() {
            let expected = format!("no bits beyond the prefix length, as in {}", route.dst.trunc());
            return Err(invalid(&format!("{path}.dst"), &json!(route.dst.to_string()), &expected));
        }
        for extra in ["mtu", "advmss", "priority", "table", "scope"] {
            fields.u32(extra)?;
        }
        route.other.retain(|_, value| !value.is_null());
        Ok(route)
    }
}

fn interface(fields: &Fields) -> Result<Interface, CniError> {
    Ok(Interface {
        name: fields.required("name", fields.string("name")?)?.to_owned(),
        mac: fields.string("mac")?.unwrap_or_default().to_owned(),
        mtu: fields.u32("mtu")?,
        sandbox: fields.string("sandbox")?.filter(|sandbox| !sandbox.is_empty()).map(str::to_owned),
        other: fields.others(&["name", "mac", "mtu", "sandbox"]),
    })
}

fn ip(fields: &Fields, interfaces: usize) -> Result<Ip, CniError> {
    let index = fields.i64("interface")?.and_then(|index| usize::try_from(index).ok());
    Ok(Ip {
        address: prefix(fields, "address")?,
        gateway: fields.parsed("gateway", "an IP address")?,
        interface: index.filter(|index| *index < interfaces),
        other: fields.others(&["address", "gateway", "interface", "version"]),
    })
}

/// The address of a family in 0.1.0 and 0.2.0, if it has one.
fn only_ip(fields: &Fields) -> Result<Option<Ip>, CniError> {
    let gateway = fields.parsed("gateway", "an IP address")?;
    let address = fields.parsed("ip", PREFIX)?;
    Ok(address.map(|address| Ip { address, gateway, interface: None, other: Map::new() }))
}

fn route(fields: &Fields) -> Result<Route, CniError> {
    Ok(Route {
        dst: prefix(fields, "dst")?,
        gw: fields.parsed("gw", "an IP address")?,
        other: fields.others(&["dst", "gw"]),
    })
}

fn prefix(fields: &Fields, key: &str) -> Result<IpNet, CniError> {
    fields.required(key, fields.parsed(key, PREFIX)?)
}
