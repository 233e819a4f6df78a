//! What a cell gave.

use std::fmt::Display;

use serde::Serialize;

use super::matrix::Cell;

/// The end of one cell.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    pub(super) cell: Cell,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    pub(super) milliseconds: u128,
}

/// Whether a cell is as promised.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub(super) enum Verdict {
    Passed,
    Failed { expected: String, seen: String },
    NotRun { reason: String },
}

/// Why a cell is not as promised.
#[derive(Debug)]
pub(super) struct Miss {
    pub(super) expected: String,
    pub(super) seen: String,
}

/// What looking at a cell gives.
pub(super) type Check = Result<(), Miss>;

impl From<anyhow::Error> for Miss {
    fn from(error: anyhow::Error) -> Self {
        Self { expected: "that it works".to_owned(), seen: format!("{error:#}") }
    }
}

impl From<Check> for Verdict {
    fn from(check: Check) -> Self {
        match check {
            Ok(()) => Self::Passed,
            Err(Miss { expected, seen }) => Self::Failed { expected, seen },
        }
    }
}

/// Fails unless something holds.
pub(super) fn ensure(holds: bool, expected: impl Into<String>, seen: impl Display) -> Check {
    if holds { Ok(()) } else { Err(Miss { expected: expected.into(), seen: seen.to_string() }) }
}
