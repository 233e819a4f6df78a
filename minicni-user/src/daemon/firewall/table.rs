//! minicni's own tables of nftables, kept as they should be.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tracing::{debug, info, warn};

use super::{
    FirewallError,
    contents::{Contents, Parts, TABLE, TABLES, removal},
    elements::{self, Change},
    tool::NFT,
};

/// The tables, and what this process made of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    written: Option<Contents>,
}

impl Table {
    /// Makes the tables what is wanted, in one transaction. What an earlier process left is always written anew.
    pub(super) fn write(&mut self, wanted: &Contents) -> Result<(), FirewallError> {
        if self.written.as_ref() == Some(wanted) {
            return Ok(());
        }
        if let Some(changes) = self.written.take().and_then(|written| wanted.changes(&written)) {
            // Where somebody else changed a table meanwhile, and where an old kernel takes the end of one interval and
            // the beginning of another for a clash, all is written as a whole.
            if change(&changes).is_ok() {
                self.written = Some(wanted.clone());
                return Ok(());
            }
        }
        nft(&wanted.script())?;
        info!(
            destinations_kept = wanted.cluster.len(),
            masquerade = wanted.masquerade,
            "nftables: table {TABLE} written"
        );
        self.written = Some(wanted.clone());
        Ok(())
    }

    /// Looks whether the tables are as they were written, and repairs them.
    pub(super) fn look(&mut self, wanted: &Contents) -> Result<(), FirewallError> {
        if self.written.as_ref() == Some(wanted) && stands(wanted)? {
            return Ok(());
        }
        if self.written.take().is_some() {
            warn!("nftables: somebody changed table {TABLE}");
        }
        self.write(wanted)?;
        // Once: whoever changes it all the time must not make us do the same.
        if stands(wanted)? { Ok(()) } else { Err(FirewallError::NotAsWritten) }
    }
}

/// Whether one of the tables is there.
pub(super) fn is_there() -> bool {
    TABLES.iter().any(|table| NFT.run(&["list", "table", table], "").is_ok())
}

/// Removes the tables, if they are there.
pub(super) fn remove() -> Result<(), FirewallError> {
    nft(&removal())
}

/// Changes elements, in one transaction.
fn change(changes: &[Change]) -> Result<(), FirewallError> {
    if changes.is_empty() {
        return Ok(());
    }
    if elements::count(changes) <= elements::MOST {
        match elements::write(changes) {
            Ok(()) => return Ok(()),
            Err(error) => debug!("{error}; nft is to do it"),
        }
    }
    nft(&elements::script(changes))
}

fn nft(script: &str) -> Result<(), FirewallError> {
    NFT.run(&["-f", "-"], script).map(drop)
}

fn stands(wanted: &Contents) -> Result<bool, FirewallError> {
    for table in TABLES {
        if there(table)? != Some(wanted.parts(table)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The parts of a table that is there, or of none; `None` where a set has what we never put into one.
fn there(table: &str) -> Result<Option<Parts>, FirewallError> {
    let arguments = ["-j", "list", "table", table];
    match NFT.run(&arguments, "") {
        Ok(listing) => {
            let listing: Listing = serde_json::from_str(&listing)
                .map_err(|source| FirewallError::Malformed { command: NFT.line(&arguments), source })?;
            Ok(parts(listing))
        }
        // There is none, most likely; whatever else it is, writing the table will say it.
        Err(FirewallError::Refused { .. }) => Ok(Some(Parts::default())),
        Err(error) => Err(error),
    }
}

/// What `nft -j list` prints: <https://man.archlinux.org/man/libnftables-json.5>.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    pub(super) nftables: Vec<Object>,
}

/// One of these, or something that does not matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) chain: Option<Chain>,
    rule: Option<Rule>,
    set: Option<Set>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    chain: String,
    comment: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Value>,
}

/// A chain; one that is not at a hook has no policy.
#[derive(Debug, Deserialize)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: Option<String>,
    pub(super) policy: Option<String>,
}

/// `None` where a set has what we never put into one.
fn parts(listing: Listing) -> Option<Parts> {
    let mut parts = Parts::default();
    for Object { chain, rule, set } in listing.nftables {
        parts.chains.extend(chain.map(|chain| (chain.name, chain.policy)));
        parts.rules.extend(rule.map(|rule| (rule.chain, rule.comment)));
        if let Some(Set { name, elem }) = set {
            parts.sets.insert(name, elem.iter().map(prefix).collect::<Option<BTreeSet<_>>>()?);
        }
    }
    parts.sort();
    Some(parts)
}

/// The prefix that an element or an operand is, if it is one.
pub(super) fn prefix(value: &Value) -> Option<IpNet> {
    if let Some(address) = value.as_str() {
        return address.parse::<IpAddr>().ok().map(IpNet::from);
    }
    let prefix = value.get("prefix")?;
    let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
    IpNet::new(prefix.get("addr")?.as_str()?.parse().ok()?, length).ok()
}

#[cfg(test)]
mod tests;
