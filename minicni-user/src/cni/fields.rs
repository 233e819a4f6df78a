//! Reading JSON objects so that an error names the field, its value and what was expected.

use serde_json::{Map, Value};

use super::{CniError, Code, get_ignore_case};

/// A JSON object and where in the configuration it stands. A `null` counts as absent everywhere.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
    written_in_go: bool,
}

impl<'a> Fields<'a> {
    /// The configuration itself.
    pub(super) fn top(map: &'a Map<String, Value>) -> Self {
        Fields { map, path: String::new(), written_in_go: false }
    }

    /// The object `map` at `path` of which Go's habits are to be expected, and of all objects inside: keys are found
    /// whatever the case of their letters, and what is empty was not set.
    pub(super) fn written_in_go(map: &'a Map<String, Value>, path: &str) -> Self {
        Fields { map, path: path.to_owned(), written_in_go: true }
    }

    /// The object `value`, which stands at `path`.
    pub(super) fn of(value: &'a Value, path: &str) -> Result<Self, CniError> {
        match value {
            Value::Object(map) => Ok(Fields { map, path: path.to_owned(), written_in_go: false }),
            other => Err(invalid(path, other, "an object")),
        }
    }

    /// Where the value of `key` stands.
    fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        if self.written_in_go {
            return get_ignore_case(self.map, key).filter(|value| **value != "");
        }
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// An object inside this one.
    pub(super) fn inner(&self, value: &'a Value, path: &str) -> Result<Self, CniError> {
        Fields::of(value, path).map(|fields| Fields { written_in_go: self.written_in_go, ..fields })
    }

    /// The items of a list, or the one value that stands there instead, each with its path. A `null` and an empty
    /// string are no items.
    pub(super) fn items(&self, key: &str) -> Vec<(String, &'a Value)> {
        let path = self.path(key);
        let items = match self.get(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect()
            }
            Some(item) => vec![(path, item)],
        };
        items.into_iter().filter(|(_, item)| !item.is_null() && **item != "").collect()
    }

    /// A string.
    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, CniError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A string that reads as a `T`; an empty one counts as absent.
    pub(super) fn parsed<T: std::str::FromStr>(&self, key: &str, expected: &str) -> Result<Option<T>, CniError> {
        self.typed(key, expected, |value| match value.as_str()? {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        })
        .map(Option::flatten)
    }

    /// An unsigned number of 32 bits.
    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>, CniError> {
        self.typed(key, "a number from 0 to 4294967295", |value| value.as_u64()?.try_into().ok())
    }

    /// An integer.
    pub(super) fn i64(&self, key: &str) -> Result<Option<i64>, CniError> {
        self.typed(key, "an integer", Value::as_i64)
    }

    /// A list of strings.
    pub(super) fn strings(&self, key: &str) -> Result<Vec<String>, CniError> {
        let strings = self.typed(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        })?;
        Ok(strings.unwrap_or_default())
    }

    /// An object, empty where it is absent.
    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>, CniError> {
        self.get(key).map(|value| self.inner(value, &self.path(key))).transpose()
    }

    /// A list of objects, empty where it is absent.
    pub(super) fn objects(&self, key: &str) -> Result<Vec<Fields<'a>>, CniError> {
        let path = self.path(key);
        let items = self.typed(key, "a list of objects", Value::as_array)?;
        items.into_iter().flatten().enumerate().map(|(i, item)| self.inner(item, &format!("{path}[{i}]"))).collect()
    }

    /// The keys that are not in `known`.
    pub(super) fn others(&self, known: &[&str]) -> Map<String, Value> {
        let others = self.map.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        others.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The whole object.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        self.map.clone()
    }

    /// Says that `key` must not be left out.
    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, CniError> {
        value.ok_or_else(|| CniError::new(Code::InvalidConfig, format!("{} is missing", self.path(key))))
    }

    /// What `read` makes of the value of `key`, if it is there.
    pub(super) fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CniError> {
        self.get(key).map(|value| read(value).ok_or_else(|| invalid(&self.path(key), value, expected))).transpose()
    }
}

/// How much of a value an error repeats, in characters.
const SHOWN: usize = 100;

/// Code 7, naming `path` and `value`.
pub(super) fn invalid(path: &str, value: &Value, expected: &str) -> CniError {
    let text = value.to_string();
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('\u{2026}');
    }
    CniError::new(Code::InvalidConfig, format!("invalid {path}: {shown}")).details(format!("expected {expected}"))
}
