//! Finds chains of others, in nftables' own language, that drop what they do not accept: firewalld's, for example.

use ipnet::IpNet;
use serde_json::Value;

use super::{
    FirewallError,
    table::{Chain, Listing, prefix},
    tool::NFT,
};
use crate::node::HOST_PREFIX;

/// The chains of all tables.
pub(super) fn chains() -> Result<Vec<Chain>, FirewallError> {
    let arguments = ["-j", "list", "chains"];
    let listing: Listing = serde_json::from_str(&NFT.run(&arguments, "")?)
        .map_err(|source| FirewallError::Malformed { command: NFT.line(&arguments), source })?;
    Ok(listing.nftables.into_iter().filter_map(|object| object.chain).collect())
}

/// Those that drop forwarded packets, in tables that know nothing of the pods.
pub(super) fn blocking(chains: &[Chain], pods: &[IpNet]) -> Vec<FirewallError> {
    let suspects = chains.iter().filter(|chain| is_strict(chain));
    let blocking = suspects.filter(|Chain { family, table, .. }| {
        let listing = NFT.run(&["-j", "list", "table", family, table], "");
        // One that went meanwhile blocks nobody.
        listing.is_ok_and(|listing| serde_json::from_str(&listing).is_ok_and(|table| !knows(&table, pods)))
    });
    let prefixes = pods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let error = |Chain { family, table, name, .. }: &Chain| FirewallError::Foreign {
        chain: format!("{family} {table} {name}"),
        prefixes: prefixes.clone(),
    };
    blocking.map(error).collect()
}

/// firewalld accepts by policy, and rejects by its last rule.
fn is_strict(chain: &Chain) -> bool {
    let drops = chain.policy.as_deref() == Some("drop") || chain.table == "firewalld";
    chain.hook.as_deref() == Some("forward") && drops && !chain.is_iptables()
}

/// Whether a table names a prefix around each of the pods', or the pods' interfaces. What it does with them is the
/// administrator's.
fn knows(table: &Value, pods: &[IpNet]) -> bool {
    pods.iter().all(|pod| names(table, &|value| prefix(value).is_some_and(|prefix| prefix.contains(pod))))
        || names(table, &|value| value.as_str().is_some_and(|text| text.starts_with(HOST_PREFIX)))
}

fn names(value: &Value, what: &dyn Fn(&Value) -> bool) -> bool {
    what(value)
        || match value {
            Value::Array(values) => values.iter().any(|value| names(value, what)),
            Value::Object(values) => values.values().any(|value| names(value, what)),
            _ => false,
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
        assert!(knows(&v4, &pods[..1]));
        assert!(!knows(&v4, &pods), "the other family");
        assert!(!knows(&json!([{"prefix": {"addr": "10.244.1.0", "len": 25}}]), &pods[..1]));
        assert!(knows(&json!({"match": {"left": {"meta": {"key": "iifname"}}, "right": "mni*"}}), &pods));
    }
}
