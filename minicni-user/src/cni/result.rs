//! What ADD answers, in the shape of every served version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{CniError, Code, Version};

/// The result of an ADD.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AddResult {
    /// Interfaces that were created, host ends included.
    pub interfaces: Vec<Interface>,
    /// The container's addresses, the cluster's primary family first. CRI-O makes a pod address of every entry.
    pub ips: Vec<Ip>,
    /// Routes inside the container.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    /// Its name; `CNI_IFNAME` for the container's end.
    pub name: String,
    /// Its hardware address as `02:00:00:00:00:01`; empty where there is none.
    pub mac: String,
    /// Its MTU in bytes. Told since 1.0.0.
    pub mtu: Option<u32>,
    /// `CNI_NETNS`, verbatim, for an interface inside the container; `None` for one on the host.
    pub sandbox: Option<String>,
    /// Keys of a previous plugin's entry beyond these.
    pub other: Map<String, Value>,
}

/// An address of the container.
#[derive(Debug, Clone, PartialEq)]
pub struct Ip {
    /// Address (not network) and prefix length, such as `10.1.2.3/32`.
    pub address: IpNet,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Which entry of [`AddResult::interfaces`] carries it, counted from 0.
    pub interface: Option<usize>,
    /// Keys of a previous plugin's entry beyond these.
    pub other: Map<String, Value>,
}

/// A route inside the container.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop; `None` where there is none, or where it is the gateway of the address.
    pub gw: Option<IpAddr>,
    /// Keys beyond these: `mtu`, `advmss`, `priority`, `table`, `scope` and what else a previous plugin said.
    pub other: Map<String, Value>,
}

/// Name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers, in order.
    pub nameservers: Vec<String>,
    /// The local domain; empty where there is none.
    pub domain: String,
    /// Search domains, in order.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
}

impl AddResult {
    /// What a chained plugin answers: this result of the plugins before it, followed by `ours`. Our interfaces come
    /// last and our addresses point at them; our DNS replaces theirs unless it is empty.
    #[must_use]
    pub fn merge(mut self, ours: AddResult) -> AddResult {
        let before = self.interfaces.len();
        self.interfaces.extend(ours.interfaces);
        let shifted = ours.ips.into_iter().map(|ip| Ip { interface: ip.interface.map(|index| index + before), ..ip });
        self.ips.extend(shifted);
        self.routes.extend(ours.routes);
        if !ours.dns.is_empty() {
            self.dns = ours.dns;
        }
        self
    }

    /// The document for standard output, in exactly the shape of `version`.
    ///
    /// What a version has no words for is left out: 0.1.0 and 0.2.0 tell the first address of each family with the
    /// routes of that family, and nothing else. Errors: code 1 where that would say nothing at all, for lack of addresses.
    pub fn to_json(&self, version: Version) -> Result<Value, CniError> {
        let mut json = json!({"cniVersion": version.as_str()});
        if version < Version::V0_3_0 {
            self.write_families(&mut json, version)?;
        } else {
            self.write_lists(&mut json, version);
        }
        // Go's `omitempty` never left out a struct, so that readers of 0.x are used to an empty one.
        if version < Version::V1_0_0 || !self.dns.is_empty() {
            json["dns"] = self.dns.to_json();
        }
        Ok(json)
    }

    /// `interfaces`, `ips` and `routes`.
    fn write_lists(&self, json: &mut Value, version: Version) {
        if !self.interfaces.is_empty() {
            json["interfaces"] = self.interfaces.iter().map(|interface| interface.to_json(version)).collect();
        }
        if !self.ips.is_empty() {
            json["ips"] = self.ips.iter().map(|ip| ip.to_json(version, self.interfaces.len())).collect();
        }
        if !self.routes.is_empty() {
            json["routes"] = self.routes.iter().map(Route::to_json).collect();
        }
    }

    /// `ip4` and `ip6`.
    fn write_families(&self, json: &mut Value, version: Version) -> Result<(), CniError> {
        if self.ips.is_empty() {
            return Err(CniError::new(Code::IncompatibleVersion, "cannot convert: no valid IP addresses").details(
                format!("a result of CNI {} consists of its addresses; ask for 0.3.0 or later", version.as_str()),
            ));
        }
        for (key, is_v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == is_v4) else { continue };
            json[key] = json!({"ip": ip.address.to_string()});
            if let Some(gateway) = ip.gateway {
                json[key]["gateway"] = json!(gateway);
            }
            let routes: Vec<_> = self.routes.iter().filter(|route| route.dst.addr().is_ipv4() == is_v4).collect();
            if !routes.is_empty() {
                json[key]["routes"] = routes.into_iter().map(Route::plain).collect();
            }
        }
        Ok(())
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut json = self.other.clone();
        // They came with 1.1.0, and the reference library tells them in 1.0.0 as well.
        if version < Version::V1_0_0 {
            json.retain(|key, _| key != "socketPath" && key != "pciID");
        }
        json.insert("name".into(), json!(self.name));
        if !self.mac.is_empty() {
            json.insert("mac".into(), json!(self.mac));
        }
        if let Some(mtu) = self.mtu.filter(|_| version >= Version::V1_0_0) {
            json.insert("mtu".into(), json!(mtu));
        }
        if let Some(sandbox) = &self.sandbox {
            json.insert("sandbox".into(), json!(sandbox));
        }
        Value::Object(json)
    }
}

impl Ip {
    fn to_json(&self, version: Version, interfaces: usize) -> Value {
        let mut json = self.other.clone();
        json.insert("address".into(), json!(self.address.to_string()));
        if version < Version::V1_0_0 {
            json.insert("version".into(), json!(if self.address.addr().is_ipv4() { "4" } else { "6" }));
        }
        if let Some(gateway) = self.gateway {
            json.insert("gateway".into(), json!(gateway));
        }
        // containerd follows the index without looking and panics where it names no interface.
        if let Some(index) = self.interface.filter(|index| *index < interfaces) {
            json.insert("interface".into(), json!(index));
        }
        Value::Object(json)
    }
}

impl Route {
    fn to_json(&self) -> Value {
        let mut json = self.other.clone();
        json.extend(self.plain());
        Value::Object(json)
    }

    /// Destination and next hop, without what came later than 0.2.0.
    fn plain(&self) -> Map<String, Value> {
        let mut json = Map::new();
        json.insert("dst".into(), json!(self.dst.to_string()));
        if let Some(gw) = self.gw {
            json.insert("gw".into(), json!(gw));
        }
        json
    }
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }

    /// The key `dns` of a configuration or of a result; empty where it is absent.
    pub(super) fn read(parent: &Fields) -> Result<Dns, CniError> {
        let Some(fields) = parent.object("dns")? else { return Ok(Dns::default()) };
        Ok(Dns {
            nameservers: fields.strings("nameservers")?,
            domain: fields.string("domain")?.unwrap_or_default().to_owned(),
            search: fields.strings("search")?,
            options: fields.strings("options")?,
        })
    }

    fn to_json(&self) -> Value {
        let mut json = Map::new();
        for (key, list) in [("nameservers", &self.nameservers), ("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                json.insert(key.into(), json!(list));
            }
        }
        if !self.domain.is_empty() {
            json.insert("domain".into(), json!(self.domain));
        }
        Value::Object(json)
    }
}
