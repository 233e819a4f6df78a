//! Finds chains of others, in nftables' own language, that drop what they do not accept: firewalld's, for example.

use ipnet::IpNet;
use serde_json::Value;

use super::{
    FirewallError,
    table::{Chain, Listing, prefix},
    tool::NFT,
};
use crate::node::HOST_PREFIX;

/// The table of firewalld.
const FIREWALLD: &str = "firewalld";
/// How many prefixes are told at once.
const TOLD: usize = 4;

/// The chains of all tables.
pub(super) fn chains() -> Result<Vec<Chain>, FirewallError> {
    let arguments = ["-j", "list", "chains"];
    let listing: Listing = serde_json::from_str(&NFT.run(&arguments, "")?)
        .map_err(|source| FirewallError::Malformed { command: NFT.line(&arguments), source })?;
    Ok(listing.nftables.into_iter().filter_map(|object| object.chain).collect())
}

/// Those that drop forwarded packets, in tables that know nothing of this node's pods; in firewalld's, of somebody that they
/// talk to, because it goes by where a packet comes from.
pub(super) fn blocking(chains: &[Chain], pods: &[IpNet], senders: &[IpNet]) -> Vec<FirewallError> {
    let suspects = chains.iter().filter(|chain| is_strict(chain));
    let blocking = suspects.filter_map(|Chain { family, table, name, .. }| {
        // One that went meanwhile blocks nobody.
        let listing = NFT.run(&["-j", "list", "table", family, table], "").ok()?;
        let listing = serde_json::from_str(&listing).ok()?;
        let chain = format!("{family} {table} {name}");
        if table == FIREWALLD {
            let missing = missing(&listing, senders);
            return (!missing.is_empty())
                .then(|| FirewallError::Firewalld { chain, trust: trust(&IpNet::aggregate(&missing)) });
        }
        (!missing(&listing, pods).is_empty()).then(|| FirewallError::Foreign { chain, prefixes: listed(pods) })
    });
    blocking.collect()
}

/// The arguments of firewall-cmd for prefixes, or for the first of many.
fn trust(missing: &[IpNet]) -> String {
    let more = if missing.len() > TOLD { " …" } else { "" };
    let options: Vec<_> = missing.iter().take(TOLD).map(|prefix| format!("--add-source={prefix}")).collect();
    options.join(" ") + more
}

fn listed(prefixes: &[IpNet]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// firewalld accepts by policy, and rejects by its last rule.
fn is_strict(chain: &Chain) -> bool {
    let drops = chain.policy.as_deref() == Some("drop") || chain.table == FIREWALLD;
    chain.hook.as_deref() == Some("forward") && drops && !chain.is_iptables()
}

/// Those prefixes around which a table names none; nothing where it names the pods' interfaces. What it does with them is the
/// administrator's.
fn missing(table: &Value, prefixes: &[IpNet]) -> Vec<IpNet> {
    let (mut named, mut interfaces) = (Vec::new(), false);
    visit(table, &mut |value| {
        named.extend(prefix(value));
        interfaces |= value.as_str().is_some_and(|text| text.starts_with(HOST_PREFIX));
    });
    let is_named = |prefix: &IpNet| interfaces || named.iter().any(|named| named.contains(prefix));
    prefixes.iter().copied().filter(|prefix| !is_named(prefix)).collect()
}

fn visit(value: &Value, see: &mut impl FnMut(&Value)) {
    see(value);
    match value {
        Value::Array(values) => values.iter().for_each(|value| visit(value, see)),
        Value::Object(values) => values.values().for_each(|value| visit(value, see)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_knows_the_pods_by_a_prefix_around_them_or_by_their_interfaces() {
        let pods = ["10.244.1.0/24".parse().unwrap(), "fd44:0:0:1::/64".parse().unwrap()];
        let v4 = json!({"set": {"elem": [{"prefix": {"addr": "10.244.0.0", "len": 16}}]}});
        assert_eq!(missing(&v4, &pods), &pods[1..], "the other family");
        let within = json!([{"prefix": {"addr": "10.244.1.0", "len": 25}}]);
        assert_eq!(missing(&within, &pods[..1]), &pods[..1]);
        assert!(missing(&json!({"match": {"left": {"meta": {"key": "iifname"}}, "right": "mni*"}}), &pods).is_empty());
    }

    #[test]
    fn of_many_prefixes_to_trust_the_first_are_told() {
        let prefixes: Vec<IpNet> = (0..5).map(|third| format!("10.2.{}.0/24", 2 * third).parse().unwrap()).collect();
        assert_eq!(trust(&prefixes[..2]), "--add-source=10.2.0.0/24 --add-source=10.2.2.0/24");
        assert!(trust(&prefixes).ends_with("--add-source=10.2.6.0/24 …"));
    }
}
