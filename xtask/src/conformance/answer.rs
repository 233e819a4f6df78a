//! What a plugin answered, judged by what every command owes its runtime.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use serde_json::Value;

use super::outcome::{Check, Miss, ensure, wrong};

/// The end of a plugin.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The exit status; `None` where a signal ended it, ours after its time was over for example.
    pub(super) status: Option<i32>,
    /// All of standard output.
    pub(super) stdout: String,
    /// All of standard error.
    pub(super) stderr: String,
    /// Whether something held standard output or error open after the plugin's end.
    pub(super) held_open: bool,
    /// From exec to exit.
    pub(super) took: Duration,
}

impl Answer {
    /// Status 0, with one JSON document.
    pub(super) fn document(&self) -> Result<Value, Miss> {
        let expected = "status 0 and one JSON document on stdout";
        ensure(self.status == Some(0), expected, self)?;
        self.json().ok_or_else(|| wrong(expected, self))
    }

    /// As [`Answer::document`], with an address: the result of an ADD.
    pub(super) fn result(&self) -> Result<Value, Miss> {
        let document = self.document()?;
        let ips = document["ips"].as_array().is_some_and(|ips| !ips.is_empty());
        let has_address = ips || document["ip4"].is_object() || document["ip6"].is_object();
        ensure(has_address, "a result with an address", self)?;
        Ok(document)
    }

    /// Status 0, whatever it said.
    pub(super) fn success(&self) -> Check {
        ensure(self.status == Some(0), "status 0", self)
    }

    /// Status 0, with nothing on standard output.
    pub(super) fn silence(&self) -> Check {
        ensure(self.status == Some(0) && self.stdout.is_empty(), "status 0 and nothing on stdout", self)
    }

    /// Another status than 0, with one JSON document that has `code` and `msg`.
    pub(super) fn error(&self) -> Result<Value, Miss> {
        let expected = "an error: a status that is not 0, and one JSON document with code and msg on stdout";
        let document = self.json().filter(|document| document["code"].is_u64() && document["msg"].is_string());
        match document {
            Some(document) if self.status.is_some_and(|status| status != 0) => Ok(document),
            _ => Err(wrong(expected, self)),
        }
    }

    /// As [`Answer::error`], with this code.
    pub(super) fn error_code(&self, code: u64) -> Result<Value, Miss> {
        let document = self.error()?;
        ensure(document["code"] == code, format!("error code {code}"), self)?;
        Ok(document)
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.stdout).ok()
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "status {status}")?,
            None => write!(f, "no end of its own after {:.1?}", self.took)?,
        }
        write!(f, ", stdout {:?}", shortened(&self.stdout))?;
        if !self.stderr.is_empty() {
            write!(f, ", stderr {:?}", shortened(&self.stderr))?;
        }
        Ok(())
    }
}

/// A text on one line, and not more of it than a person reads.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: i32, stdout: &str) -> Answer {
        let (stdout, stderr) = (stdout.to_owned(), String::new());
        Answer { status: Some(status), stdout, stderr, held_open: false, took: Duration::ZERO }
    }

    #[test]
    fn a_document_is_one_document_and_nothing_around_it() {
        assert!(answer(0, "{\"a\": 1}\n").document().is_ok());
        for stdout in ["", "note\n{}", "{}{}", "{} trailing"] {
            assert!(answer(0, stdout).document().is_err(), "{stdout}");
        }
        assert!(answer(1, "{}").document().is_err());
    }

    #[test]
    fn an_error_has_a_status_a_code_and_a_message() {
        assert!(answer(1, r#"{"code": 7, "msg": "bad"}"#).error_code(7).is_ok());
        for (status, stdout) in [
            (0, r#"{"code": 7, "msg": "bad"}"#),
            (1, r#"{"code": 6, "msg": "bad"}"#),
            (1, r#"{"code": "7", "msg": "bad"}"#),
            (1, r#"{"code": 7}"#),
            (1, ""),
        ] {
            assert!(answer(status, stdout).error_code(7).is_err(), "{status} {stdout}");
        }
    }

    #[test]
    fn a_result_has_an_address() {
        assert!(answer(0, r#"{"ips": [{"address": "10.77.0.2/24"}]}"#).result().is_ok());
        assert!(answer(0, r#"{"ip6": {"ip": "fd77::2/64"}}"#).result().is_ok());
        assert!(answer(0, r#"{"ips": []}"#).result().is_err());
        assert!(answer(0, r#"{"cniVersion": "1.0.0"}"#).result().is_err());
    }

    #[test]
    fn silence_is_status_0_without_output() {
        assert!(answer(0, "").silence().is_ok());
        assert!(answer(0, "\n").silence().is_err());
        assert!(answer(1, "").silence().is_err());
    }

    #[test]
    fn what_is_shown_of_an_answer_stays_on_one_line() {
        let long = answer(1, &format!("a\n\tb{}", "x".repeat(1000)));
        let shown = long.to_string();
        assert!(shown.starts_with("status 1, stdout \"a bx") && shown.ends_with("…\"") && shown.len() < 400, "{shown}");
    }
}
