//! One call of the plugin, from the environment to the exit status.

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::decode;
use super::version::numbers;
use super::{AddResult, CniError, Code, Command, Environment, NetConf, Version};

/// What the runtime asked for, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The `CNI_*` variables.
    pub environment: Environment,
    /// Standard input.
    pub config: NetConf,
}

/// The commands, each with its promise from the specification.
pub trait Plugin {
    /// Attaches the container, and answers with what was made for it. A `prevResult` is merged by [`run`].
    fn add(&self, request: &Request) -> Result<AddResult, CniError>;
    /// Verifies the attachment against `prevResult`, and changes nothing.
    fn check(&self, request: &Request) -> Result<(), CniError>;
    /// Removes the attachment. Succeeds where it is already gone.
    fn del(&self, request: &Request) -> Result<(), CniError>;
    /// Removes the network's attachments that are not valid any more.
    fn gc(&self, request: &Request) -> Result<(), CniError>;
    /// Fails where an ADD could not be served.
    fn status(&self, request: &Request) -> Result<(), CniError>;
}

/// How long VERSION waits for an input that names the caller's version. The reference implementation does not read
/// standard input for VERSION at all, so a caller may keep it open.
const VERSION_INPUT_WAIT: Duration = Duration::from_millis(50);
/// How much of that input is looked at, in bytes.
const VERSION_INPUT_LIMIT: u64 = 64 * 1024;

/// Serves one call and returns the exit status: 0, or 1 on an error.
///
/// `lookup` reads an environment variable. Standard output gets exactly one JSON document on a successful ADD or VERSION
/// and on every error, and nothing otherwise; standard error gets the about text where there is no `CNI_COMMAND`.
pub fn run(
    plugin: &impl Plugin,
    lookup: impl Fn(&str) -> Option<String>,
    stdin: impl Read + Send + 'static,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let (version, answer) = match Environment::parse(lookup) {
        Err(error) => (Version::LATEST, Err(error)),
        Ok(None) => {
            // Nobody is left to tell where even this cannot be written.
            let _ = writeln!(stderr, "{}", about());
            return 0;
        }
        Ok(Some(environment)) if environment.command == Command::Version => {
            (Version::LATEST, Ok(Some(version_document(stdin, VERSION_INPUT_WAIT))))
        }
        Ok(Some(environment)) => match read(stdin) {
            Err(error) => (Version::LATEST, Err(error)),
            Ok(map) => (error_version(&map), answer(plugin, environment, &map)),
        },
    };
    let (document, status) = match answer {
        Ok(document) => (document, 0),
        Err(error) => (Some(error.to_json(version)), 1),
    };
    match document.map_or(Ok(()), |document| print(stdout, &document)) {
        Ok(()) => status,
        Err(error) => {
            let _ = writeln!(stderr, "minicni: writing the answer to stdout failed: {error}");
            1
        }
    }
}

/// Checks the configuration, calls the plugin, and returns what goes to standard output on success.
fn answer(plugin: &impl Plugin, environment: Environment, map: &Map<String, Value>) -> Result<Option<Value>, CniError> {
    let config = NetConf::from_map(map, environment.command)?;
    let request = Request { environment, config };
    match request.environment.command {
        Command::Add => return add(plugin, &request).map(Some),
        Command::Check => plugin.check(&request),
        Command::Del => plugin.del(&request),
        Command::Gc => plugin.gc(&request),
        Command::Status => plugin.status(&request),
        Command::Version => Ok(()),
    }?;
    Ok(None)
}

fn add(plugin: &impl Plugin, request: &Request) -> Result<Value, CniError> {
    // Read before anything is made that an unreadable one would have to undo.
    let previous = request.config.prev_result.as_ref().map(AddResult::from_prev_result).transpose()?;
    let ours = plugin.add(request)?;
    let merged = previous.unwrap_or_default().merge(ours);
    merged.to_json(request.config.cni_version).map_err(|error| undone(plugin, request, error))
}

/// The error of an ADD whose result cannot be told, after what it made was removed.
fn undone(plugin: &impl Plugin, request: &Request, error: CniError) -> CniError {
    let mut request = request.clone();
    request.environment.command = Command::Del;
    match plugin.del(&request) {
        Ok(()) => error,
        Err(left) => {
            let details = format!("{}; removing the attachment failed too, DEL has to do it: {left}", error.details);
            error.details(details)
        }
    }
}

fn read(mut stdin: impl Read) -> Result<Map<String, Value>, CniError> {
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(|error| {
        CniError::new(Code::Io, "reading the network configuration from stdin failed").details(error.to_string())
    })?;
    decode(&bytes)
}

/// The version an error is told in: the configuration's where it is served.
fn error_version(map: &Map<String, Value>) -> Version {
    let declared = match map.get("cniVersion") {
        None | Some(Value::Null) => Some(""),
        Some(declared) => declared.as_str(),
    };
    declared.and_then(Version::declared).unwrap_or(Version::LATEST)
}

fn print(stdout: &mut impl Write, document: &Value) -> io::Result<()> {
    stdout.write_all(format!("{document}\n").as_bytes())?;
    stdout.flush()
}

fn version_document(stdin: impl Read + Send + 'static, wait: Duration) -> Value {
    let declared = version_of_input(stdin, wait).filter(|text| numbers(text).is_some());
    json!({
        "cniVersion": declared.as_deref().unwrap_or(Version::LATEST.as_str()),
        "supportedVersions": Version::SUPPORTED.map(Version::as_str),
    })
}

/// The `cniVersion` of the first JSON value on standard input, unless that takes longer than `wait` to arrive. Does not wait for
/// the end of the input. The reading thread is left behind, blocked, and ends with the process.
fn version_of_input(stdin: impl Read + Send + 'static, wait: Duration) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    let read_first = move || {
        let mut values = serde_json::Deserializer::from_reader(stdin.take(VERSION_INPUT_LIMIT)).into_iter::<Value>();
        let declared =
            values.next().and_then(Result::ok).and_then(|value| value.get("cniVersion")?.as_str().map(str::to_owned));
        // The receiver may have given up.
        let _ = sender.send(declared);
    };
    thread::Builder::new().spawn(read_first).ok()?;
    receiver.recv_timeout(wait).ok().flatten()
}

fn about() -> String {
    let versions = Version::SUPPORTED.map(Version::as_str).join(", ");
    format!("CNI plugin minicni v{}\nCNI protocol versions supported: {versions}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What VERSION echoes for `input` on a pipe that stays open.
    fn echoed(input: &[u8], wait: Duration) -> Value {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(input).unwrap();
        let document = version_document(reader, wait);
        let served = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        assert_eq!(document["supportedVersions"], served);
        document["cniVersion"].clone()
    }

    #[test]
    fn version_echoes_the_version_of_an_input_that_is_still_open() {
        let patient = Duration::from_secs(10);
        assert_eq!(echoed(br#"{"cniVersion":"0.4.0"}"#, patient), "0.4.0");
        assert_eq!(echoed(br#"{"name":"n","cniVersion":"1.0.0"} trailing"#, patient), "1.0.0");
        assert_eq!(echoed(br#"{"cniVersion":"2.0.0"}"#, patient), "2.0.0");
    }

    #[test]
    fn version_answers_with_the_latest_where_the_input_names_none() {
        for input in
            [r#"{"cniVersion":""}"#, r#"{"cniVersion":7}"#, r#"{"cniVersion":"x"}"#, "{}", "[]", "null ", "nonsense"]
        {
            assert_eq!(echoed(input.as_bytes(), Duration::from_secs(10)), "1.1.0", "{input}");
        }
    }

    #[test]
    fn version_does_not_wait_for_an_input_that_does_not_come() {
        for input in ["", r#"{"cniVersion":"0.4.0""#] {
            assert_eq!(echoed(input.as_bytes(), VERSION_INPUT_WAIT), "1.1.0", "{input}");
        }
    }

    #[test]
    fn version_looks_at_a_bounded_part_of_an_endless_input() {
        let endless = io::Read::chain(io::Cursor::new(b"\""), io::repeat(b'x'));
        assert_eq!(version_document(endless, Duration::from_mins(1))["cniVersion"], "1.1.0");
    }
}
