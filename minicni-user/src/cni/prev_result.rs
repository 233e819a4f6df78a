//! Reading the result of the plugins before us, or of an attachment's own ADD.

use ipnet::IpNet;
use serde_json::Value;

use super::fields::Fields;
use super::{AddResult, CniError, Dns, Interface, Ip, Route};

impl AddResult {
    /// Reads a `prevResult` of any served version: their shapes can be told apart key by key, so that its own
    /// `cniVersion`, which runtimes may omit, does not matter.
    ///
    /// Unknown keys of interfaces, addresses and routes are kept. An address whose `interface` names no entry of
    /// `interfaces` is read as one without. Errors: code 7 naming field and value.
    pub fn from_prev_result(value: &Value) -> Result<AddResult, CniError> {
        let fields = Fields::of(value, "prevResult")?;
        let interfaces = fields.objects("interfaces")?.iter().map(interface).collect::<Result<Vec<_>, _>>()?;
        let ips = fields.objects("ips")?.iter().map(|fields| ip(fields, interfaces.len())).collect::<Result<_, _>>()?;
        let routes = fields.objects("routes")?.iter().map(route).collect::<Result<_, _>>()?;
        Ok(AddResult { interfaces, ips, routes, dns: Dns::read(&fields)? })
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

fn route(fields: &Fields) -> Result<Route, CniError> {
    Ok(Route {
        dst: prefix(fields, "dst")?,
        gw: fields.parsed("gw", "an IP address")?,
        other: fields.others(&["dst", "gw"]),
    })
}

fn prefix(fields: &Fields, key: &str) -> Result<IpNet, CniError> {
    fields.required(key, fields.parsed(key, "an IP address with prefix length, such as 10.0.0.1/24")?)
}
