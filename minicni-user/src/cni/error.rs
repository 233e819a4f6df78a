//! Errors as the runtime reads them: a number, a message, details.

use std::fmt;

use serde_json::{Value, json};

use super::Version;

/// What went wrong, in the numbers of the
/// [specification](https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md#error).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 1: the configuration's `cniVersion` is not served, does not know the command, or cannot express the result.
    IncompatibleVersion,
    /// 2: a field is understood, but what it asks for is not supported. The message names key and value.
    UnsupportedField,
    /// 3: the container does not exist, and the runtime need not clean up.
    UnknownContainer,
    /// 4: a `CNI_*` variable is missing or invalid. The message names it.
    InvalidEnvironment,
    /// 5: reading standard input, or other input or output, failed.
    Io,
    /// 6: the input is not JSON, or its version is not a version.
    Decode,
    /// 7: the configuration is JSON but invalid. The message names field and value.
    InvalidConfig,
    /// 8: `CNI_NETNS` is the network namespace of the plugin itself. (The reference library's number.)
    InvalidNetns,
    /// 11: a transient condition; the same call may succeed later.
    TryAgain,
    /// 50: STATUS: an ADD cannot be served now.
    NotAvailable,
    /// 51: STATUS: an ADD cannot be served now, and existing containers may have limited connectivity.
    NotAvailableLimited,
    /// The plugin's own numbers, 100 and above.
    Own(u32),
    /// 999: a fault in the plugin. (The reference library's number.)
    Internal,
}

impl Code {
    /// The number in the error's JSON.
    pub fn number(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decode => 6,
            Code::InvalidConfig => 7,
            Code::InvalidNetns => 8,
            Code::TryAgain => 11,
            Code::NotAvailable => 50,
            Code::NotAvailableLimited => 51,
            Code::Own(number) => number,
            Code::Internal => 999,
        }
    }
}

/// A failed command, as it is told to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// The kind of failure.
    pub code: Code,
    /// What failed on which object, in one sentence.
    pub msg: String,
    /// More about the cause and what to do; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        CniError { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with these details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The document for standard output: `{"cniVersion", "code", "msg", "details"}`, `details` only if there are any.
    pub fn to_json(&self, version: Version) -> Value {
        let mut json = json!({"cniVersion": version.as_str(), "code": self.code.number(), "msg": self.msg});
        if !self.details.is_empty() {
            json["details"] = json!(self.details);
        }
        json
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        write!(f, " (CNI error {})", self.code.number())
    }
}

impl std::error::Error for CniError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_version_code_message_and_details() {
        let error = CniError::new(Code::TryAgain, "try again later").details("made to fail");
        let expected = json!({"cniVersion": "0.4.0", "code": 11, "msg": "try again later", "details": "made to fail"});
        assert_eq!(error.to_json(Version::V0_4_0), expected);
        assert_eq!(error.to_string(), "try again later: made to fail (CNI error 11)");
    }

    #[test]
    fn an_error_without_details_has_no_details_key() {
        let error = CniError::new(Code::Own(100), "own");
        assert_eq!(error.to_json(Version::V1_1_0), json!({"cniVersion": "1.1.0", "code": 100, "msg": "own"}));
        assert_eq!(error.to_string(), "own (CNI error 100)");
    }
}
