//! The network configuration.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use super::{InstallError, PLUGIN, failed};

/// What is installed where nobody gives another.
const BUILT_IN: &str = include_str!("../../../../deploy/10-minicni.conflist");

/// A network configuration that has minicni in it, and may need some settings.
#[derive(Debug)]
pub(super) struct Template {
    fields: Map<String, Value>,
}

impl Template {
    /// Reads the file, or takes the built-in one.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, InstallError> {
        let Some(path) = file else { return Self::parse(BUILT_IN, "the built-in configuration") };
        Self::parse(&fs::read_to_string(path).map_err(failed("read", path))?, &path.display().to_string())
    }

    fn parse(text: &str, origin: &str) -> Result<Self, InstallError> {
        let wrong = |why: String| InstallError::Template { origin: origin.to_owned(), why };
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if !fields.get("name").is_some_and(Value::is_string) {
            return Err(wrong("name is missing".to_owned()));
        }
        if !types(&fields).any(|plugin| plugin == PLUGIN) {
            return Err(wrong(format!("plugins has none of type {PLUGIN}")));
        }
        Ok(Self { fields })
    }

    /// The configuration with `settings` for minicni, where the template does not say otherwise, and without the plugins
    /// that are not there: with one of those every ADD would fail. Their types are told, too. What such a plugin would have
    /// been asked for by way of a capability, minicni must not be asked for either.
    pub(super) fn filled(
        &self,
        settings: &Map<String, Value>,
        is_there: impl Fn(&str) -> bool,
    ) -> (Value, Vec<String>) {
        let mut fields = self.fields.clone();
        let (mut missing, mut unserved) = (Vec::new(), Vec::new());
        let Some(Value::Array(plugins)) = fields.get_mut("plugins") else { return (Value::Object(fields), missing) };
        plugins.retain(|plugin| {
            let Some(name) = kind(plugin).filter(|name| *name != PLUGIN && !is_there(name)) else { return true };
            missing.push(name.to_owned());
            unserved.extend(plugin["capabilities"].as_object().into_iter().flat_map(Map::keys).cloned());
            false
        });
        for plugin in plugins.iter_mut().filter(|plugin| kind(plugin) == Some(PLUGIN)).filter_map(Value::as_object_mut)
        {
            if let Some(Value::Object(capabilities)) = plugin.get_mut("capabilities") {
                capabilities.retain(|capability, _| !unserved.contains(capability));
            }
            for (key, value) in settings {
                plugin.entry(key).or_insert_with(|| value.clone());
            }
        }
        (Value::Object(fields), missing)
    }

    /// Whether a file says what is wanted. Others, such as a service mesh, chain plugins of theirs behind ours, in our file;
    /// to take these out again would be a quarrel without an end.
    pub(super) fn accepts(&self, found: &[u8], wanted: &Value) -> bool {
        let Ok(Value::Object(mut found)) = serde_json::from_slice(found) else { return false };
        if let Some(Value::Array(plugins)) = found.get_mut("plugins") {
            plugins.retain(|plugin| !self.is_of_others(plugin));
        }
        Value::Object(found) == *wanted
    }

    /// Chains what others chained in a file of ours behind what is wanted.
    pub(super) fn carry_over(&self, found: &[u8], wanted: &mut Value) {
        let Some(found) = ours(found) else { return };
        if let Some(Value::Array(plugins)) = wanted.get_mut("plugins") {
            plugins.extend(plugins_of(&found).filter(|plugin| self.is_of_others(plugin)).cloned());
        }
    }

    fn is_of_others(&self, plugin: &Value) -> bool {
        kind(plugin).is_some_and(|name| !types(&self.fields).any(|known| known == name))
    }
}

/// Whether a network configuration is one of minicni.
pub fn is_ours(text: &[u8]) -> bool {
    ours(text).is_some()
}

fn ours(text: &[u8]) -> Option<Map<String, Value>> {
    let fields: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let is_ours = types(&fields).any(|plugin| plugin == PLUGIN);
    is_ours.then_some(fields)
}

fn types(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    plugins_of(fields).filter_map(kind)
}

fn plugins_of(fields: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    fields.get("plugins").and_then(Value::as_array).into_iter().flatten()
}

fn kind(plugin: &Value) -> Option<&str> {
    plugin.get("type")?.as_str()
}
