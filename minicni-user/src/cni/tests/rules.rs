//! The rules for standard input, standard output and the exit status, command by command.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Cursor, Write};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{CniError, Code, Command, run};
use super::{Answering, any_json, call, variables};

const COMMANDS: [&str; 5] = ["ADD", "CHECK", "DEL", "GC", "STATUS"];

#[test]
fn malformed_input_gets_the_code_of_its_rule() {
    // Rule, standard input, commands, code.
    let table: &[(&str, &str, &[&str], u64)] = &[
        ("R-IN-1", "", &COMMANDS, 6),
        ("R-IN-1", "{", &COMMANDS, 6),
        ("R-IN-1", "not json", &COMMANDS, 6),
        ("R-IN-1", "[]", &COMMANDS, 6),
        ("R-IN-1", "null", &COMMANDS, 6),
        ("R-IN-1", r#"{"name":"n","cniVersion":"1.1.0"} trailing"#, &COMMANDS, 6),
        ("R-IN-1", r#"{"cniVersion":"1.1.0"}"#, &COMMANDS, 7),
        ("R-IN-1", r#"{"name":"","cniVersion":"1.1.0"}"#, &COMMANDS, 7),
        ("R-IN-1", r#"{"name":"a b","cniVersion":"1.1.0"}"#, &COMMANDS, 7),
        ("R-IN-1 before R-IN-2", r#"{"cniVersion":"9.9.9"}"#, &COMMANDS, 7),
        ("R-IN-2", r#"{"name":"n"}"#, &["ADD", "DEL"], 0),
        ("R-IN-2", r#"{"name":"n","cniVersion":""}"#, &["ADD", "DEL"], 0),
        ("R-IN-2", r#"{"name":"n","cniVersion":null}"#, &["ADD", "DEL"], 0),
        ("R-IN-2", r#"{"name":"n","cniVersion":"0.2.0"}"#, &["ADD", "DEL"], 0),
        ("R-IN-4", r#"{"name":"n","prevResult":{}}"#, &["CHECK", "GC", "STATUS"], 1),
        ("R-IN-2", r#"{"name":"n","cniVersion":"9.9.9"}"#, &COMMANDS, 1),
        ("R-IN-3", r#"{"name":"n","cniVersion":"adsfsadf"}"#, &["ADD", "DEL"], 1),
        ("R-IN-3", r#"{"name":"n","cniVersion":"adsfsadf"}"#, &["CHECK", "GC", "STATUS"], 6),
        ("R-IN-4", r#"{"name":"n","cniVersion":"0.3.1","prevResult":{}}"#, &["CHECK", "GC", "STATUS"], 1),
        ("R-IN-4", r#"{"name":"n","cniVersion":"1.0.0","prevResult":{}}"#, &["GC", "STATUS"], 1),
        ("R-IN-4", r#"{"name":"n","cniVersion":"1.0.0","prevResult":{}}"#, &["ADD", "CHECK", "DEL"], 0),
        ("R-IN-4", r#"{"name":"n","cniVersion":"1.1.0","prevResult":{}}"#, &COMMANDS, 0),
        ("R-IN-5", r#"{"name":"n","cniVersion":"1.1.0","prevResult":{},"x":{"y":[null]}}"#, &COMMANDS, 0),
        ("R-DEL-2", r#"{"name":"n","cniVersion":"1.1.0","prevResult":{"ips":1},"runtimeConfig":1}"#, &["DEL"], 0),
        ("types", r#"{"name":"n","cniVersion":"1.1.0","prevResult":{"ips":1}}"#, &["ADD"], 7),
    ];
    for (rule, stdin, commands, code) in table {
        for command in *commands {
            let plugin = Answering::attaching();
            let outcome = call(&plugin, &variables(command), *stdin);
            assert_eq!(outcome.code(), *code, "{rule}: {command} {stdin}: {outcome:?}");
            assert_eq!(plugin.requests.borrow().len(), usize::from(*code == 0), "{rule}: {command} {stdin}");
        }
    }
}

#[test]
fn r_env_2_the_environment_is_checked_before_stdin_is_read() {
    for (name, msg) in [("CNI_IFNAME", "required env variables [CNI_IFNAME] missing"), ("CNI_COMMAND", "")] {
        // A pipe that stays open: reading it would block for ever.
        let (reader, _writer) = std::io::pipe().unwrap();
        let variables: Vec<_> = variables("ADD").into_iter().filter(|(key, _)| key != name).collect();
        let lookup = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = run(&Answering::default(), lookup, reader, &mut stdout, &mut stderr);
        if msg.is_empty() {
            assert_eq!((status, stdout.len()), (0, 0));
            let about = String::from_utf8(stderr).unwrap();
            let versions = "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
            assert!(about.contains(versions), "{about}");
        } else {
            let error: Value = serde_json::from_slice(&stdout).unwrap();
            assert_eq!((status, &error["code"], &error["msg"]), (1, &json!(4), &json!(msg)));
            assert_eq!(error["cniVersion"], "1.1.0");
        }
    }
}

#[test]
fn a_plugins_error_is_told_in_the_version_of_the_configuration() {
    for command in ["ADD", "CHECK", "DEL"] {
        let failure = CniError::new(Code::TryAgain, "try again later").details("made to fail");
        let plugin = Answering { failure: Some(failure), ..Answering::default() };
        let outcome = call(&plugin, &variables(command), r#"{"name":"n","cniVersion":"0.4.0","prevResult":{}}"#);
        let expected = json!({"cniVersion": "0.4.0", "code": 11, "msg": "try again later", "details": "made to fail"});
        assert_eq!((outcome.status, outcome.json()), (1, expected), "{command}");
    }
}

#[test]
fn an_error_about_the_input_is_told_in_the_inputs_version_where_that_is_served_and_else_in_the_latest() {
    for (stdin, version) in [
        (r#"{"name":"n","cniVersion":"0.5.0"}"#, "1.1.0"),
        (r#"{"name":"n","cniVersion":7}"#, "1.1.0"),
        ("[", "1.1.0"),
        (r#"{"cniVersion":"0.2.0"}"#, "0.2.0"),
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":""}"#, "0.1.0"),
        (r#"{"cniVersion":null}"#, "0.1.0"),
        ("{}", "0.1.0"),
    ] {
        let outcome = call(&Answering::default(), &variables("ADD"), stdin);
        assert_eq!((outcome.status, &outcome.json()["cniVersion"]), (1, &json!(version)), "{stdin}");
    }
}

#[test]
fn an_add_without_a_version_is_answered_in_the_shape_of_0_1_0() {
    let outcome = call(&Answering::attaching(), &variables("ADD"), r#"{"name":"n"}"#);
    let routes = json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]);
    let ip4 = json!({"ip": "10.244.0.2/32", "gateway": "169.254.1.1", "routes": routes});
    assert_eq!(outcome.json(), json!({"cniVersion": "0.1.0", "ip4": ip4, "dns": {}}));
}

#[test]
fn an_add_whose_result_cannot_be_told_in_the_version_leaves_nothing_behind() {
    for (del_failure, details) in [
        (None, "a result of CNI 0.2.0 consists of its addresses; ask for 0.3.0 or later"),
        (Some(CniError::new(Code::Io, "disk full")), "DEL has to do it: disk full (CNI error 5)"),
    ] {
        let plugin = Answering { del_failure, ..Answering::default() };
        let outcome = call(&plugin, &variables("ADD"), r#"{"name":"n","cniVersion":"0.2.0"}"#);
        let error = outcome.json();
        assert_eq!((outcome.code(), &error["msg"]), (1, &json!("cannot convert: no valid IP addresses")));
        assert!(error["details"].as_str().unwrap().ends_with(details), "{error}");
        assert_eq!(plugin.commands(), [Command::Add, Command::Del]);
    }
}

#[test]
fn a_runtimes_own_variables_are_not_read() {
    for command in ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"] {
        let asked = RefCell::new(Vec::new());
        let lookup = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            variables(command).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let input = Cursor::new(br#"{"name":"n","cniVersion":"1.1.0","prevResult":{}}"#);
        assert_eq!(run(&Answering::default(), lookup, input, &mut Vec::new(), &mut Vec::new()), 0);
        let foreign: Vec<_> = asked.take().into_iter().filter(|name| !name.starts_with("CNI_")).collect();
        assert_eq!(foreign, [""; 0], "{command}");
    }
}

#[test]
fn an_unreadable_stdin_is_an_io_error() {
    let directory = File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
    let variables = variables("ADD");
    let lookup = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut stdout = Vec::new();
    assert_eq!(run(&Answering::default(), lookup, directory, &mut stdout, &mut Vec::new()), 1);
    assert_eq!(serde_json::from_slice::<Value>(&stdout).unwrap()["code"], 5);
}

#[test]
fn a_closed_stdout_is_an_exit_status_and_no_panic() {
    for stdin in [r#"{"name":"n","cniVersion":"1.1.0"}"#, "broken"] {
        let (reader, mut closed) = std::io::pipe().unwrap();
        drop(reader);
        assert!(closed.write(b"x").is_err());
        let variables = variables("ADD");
        let lookup = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let mut stderr = Vec::new();
        let input = Cursor::new(stdin.as_bytes().to_vec());
        assert_eq!(run(&Answering::default(), lookup, input, &mut closed, &mut stderr), 1);
        assert!(String::from_utf8(stderr).unwrap().contains("writing the answer to stdout failed"));
    }
}

/// Exactly one document on an error and on ADD, nothing on any other success.
fn assert_one_document(command: &str, stdin: &[u8]) {
    let outcome = call(&Answering::attaching(), &variables(command), stdin);
    if outcome.status == 0 && command != "ADD" {
        assert_eq!(outcome.stdout, "");
        return;
    }
    let document = outcome.json();
    assert!(document["cniVersion"].is_string(), "{document}");
    assert_eq!(document.get("code").is_some_and(Value::is_u64), outcome.status == 1, "{document}");
}

/// The keys of results and of lists of attachments.
const KEYS: [&str; 17] = [
    "interfaces",
    "ips",
    "routes",
    "dns",
    "name",
    "address",
    "gateway",
    "interface",
    "dst",
    "gw",
    "mtu",
    "containerID",
    "ifname",
    "search",
    "ip4",
    "ip6",
    "ip",
];

proptest! {
    #[test]
    fn any_bytes_on_stdin_never_panic_and_are_answered_with_one_document(
        command in proptest::sample::select(&COMMANDS[..]),
        stdin in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        assert_one_document(command, &stdin);
    }

    #[test]
    fn any_values_under_the_protocols_keys_never_panic_and_are_answered_with_one_document(
        command in proptest::sample::select(&COMMANDS[..]),
        version in proptest::sample::select(&["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "2", "x", ""][..]),
        values in proptest::collection::vec((proptest::sample::select(&["name", "cniVersion", "type", "prevResult", "dns",
            "runtimeConfig", "cni.dev/valid-attachments", "cni.dev/attachments", "other"][..]), any_json(&KEYS)), 0..4),
    ) {
        let mut config = json!({"name": "n", "cniVersion": version});
        for (key, value) in values {
            config[key] = value;
        }
        assert_one_document(command, config.to_string().as_bytes());
    }

    #[test]
    fn any_variables_never_panic_and_are_answered_with_one_document(
        command in ".{0,6}|ADD|DEL|CHECK", id in ".{0,20}", ifname in ".{0,20}", args in ".{0,40}",
    ) {
        let variables = [("CNI_COMMAND", command.as_str()), ("CNI_CONTAINERID", &id), ("CNI_NETNS", "/n"),
            ("CNI_IFNAME", &ifname), ("CNI_ARGS", &args)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let outcome = call(&Answering::default(), &variables, r#"{"name":"n","cniVersion":"1.1.0","prevResult":{}}"#);
        if outcome.status == 1 {
            prop_assert_eq!(outcome.json()["code"].as_u64(), Some(4));
        }
    }
}
