//! What a row found out, and the words to say it with.

use std::fmt::{Debug, Display};

use serde_json::Value;

/// Why a row did not pass.
#[derive(Debug)]
pub(super) enum Miss {
    /// The plugin did something else than the rule asks for.
    Wrong { expected: String, seen: String },
    /// The rule has no meaning for this plugin.
    NotApplicable(String),
    /// The row could not be carried out.
    Broken(anyhow::Error),
}

/// What a row gives.
pub(super) type Check = Result<(), Miss>;

impl From<anyhow::Error> for Miss {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// The rule was broken.
pub(super) fn wrong(expected: impl Into<String>, seen: impl Display) -> Miss {
    Miss::Wrong { expected: expected.into(), seen: seen.to_string() }
}

/// The rule has no meaning here, for this reason.
pub(super) fn not_applicable(reason: impl Into<String>) -> Miss {
    Miss::NotApplicable(reason.into())
}

/// Fails unless something holds.
pub(super) fn ensure(holds: bool, expected: impl Into<String>, seen: impl Display) -> Check {
    if holds { Ok(()) } else { Err(wrong(expected, seen)) }
}

/// Fails unless what was seen is what was expected.
pub(super) fn same<T: PartialEq + Debug>(what: &str, seen: &T, expected: &T) -> Check {
    ensure(seen == expected, format!("{what} {expected:?}"), format!("{seen:?}"))
}

/// As [`same`], for JSON, which people read as it stands.
pub(super) fn same_json(what: &str, seen: &Value, expected: &Value) -> Check {
    ensure(seen == expected, format!("{what} {expected}"), seen)
}

/// Says in which of several cases a row failed.
pub(super) fn case<T>(name: impl Display, result: Result<T, Miss>) -> Result<T, Miss> {
    result.map_err(|miss| match miss {
        Miss::Wrong { expected, seen } => Miss::Wrong { expected, seen: format!("{name}: {seen}") },
        Miss::Broken(error) => Miss::Broken(error.context(name.to_string())),
        Miss::NotApplicable(reason) => Miss::NotApplicable(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_was_expected_and_what_was_seen_in_which_case() {
        let miss = case("empty input", same("code", &7, &6)).unwrap_err();
        let Miss::Wrong { expected, seen } = miss else { panic!("{miss:?}") };
        assert_eq!((expected.as_str(), seen.as_str()), ("code 6", "empty input: 7"));
        assert!(same("code", &6, &6).is_ok());
    }

    #[test]
    fn a_case_does_not_make_a_failure_of_what_does_not_apply() {
        let miss = case("1.1.0", Err::<(), _>(not_applicable("not served"))).unwrap_err();
        assert!(matches!(miss, Miss::NotApplicable(reason) if reason == "not served"));
    }
}
