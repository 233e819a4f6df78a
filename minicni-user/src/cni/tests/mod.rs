//! The room as a whole: calls as runtimes make them, in and out.

mod calls;
mod requested;
mod results;
mod rules;

use std::cell::RefCell;
use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{AddResult, CniError, Command, Interface, Ip, Plugin, Request, Route, run};

/// Answers every command with what it was given, and keeps the requests.
#[derive(Default)]
struct Answering {
    result: AddResult,
    failure: Option<CniError>,
    del_failure: Option<CniError>,
    requests: RefCell<Vec<Request>>,
}

impl Answering {
    fn answer(&self, request: &Request) -> Result<(), CniError> {
        self.requests.borrow_mut().push(request.clone());
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Answering {
    /// A plugin whose ADD makes something.
    fn attaching() -> Self {
        Answering { result: single_address(), ..Answering::default() }
    }

    fn commands(&self) -> Vec<Command> {
        self.requests.borrow().iter().map(|request| request.environment.command).collect()
    }
}

impl Plugin for Answering {
    fn add(&self, request: &Request) -> Result<AddResult, CniError> {
        self.answer(request).map(|()| self.result.clone())
    }
    fn check(&self, request: &Request) -> Result<(), CniError> {
        self.answer(request)
    }
    fn del(&self, request: &Request) -> Result<(), CniError> {
        self.answer(request)?;
        self.del_failure.clone().map_or(Ok(()), Err)
    }
    fn gc(&self, request: &Request) -> Result<(), CniError> {
        self.answer(request)
    }
    fn status(&self, request: &Request) -> Result<(), CniError> {
        self.answer(request)
    }
}

/// What one call left behind.
#[derive(Debug)]
struct Outcome {
    status: u8,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// The one document on standard output.
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of the error, or 0.
    fn code(&self) -> u64 {
        if self.status == 0 { 0 } else { self.json()["code"].as_u64().unwrap() }
    }
}

fn call(plugin: &impl Plugin, variables: &[(String, String)], stdin: impl Into<Vec<u8>>) -> Outcome {
    let lookup = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = run(plugin, lookup, Cursor::new(stdin.into()), &mut stdout, &mut stderr);
    Outcome { status, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

/// A complete environment for `command`.
fn variables(command: &str) -> Vec<(String, String)> {
    [("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/c1"), ("CNI_IFNAME", "eth0")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/cni").join(name)
}

/// What this plugin makes for a pod with one address.
fn single_address() -> AddResult {
    let end = |name: &str, mac: &str, sandbox: Option<&str>| Interface {
        name: name.into(),
        mac: mac.into(),
        mtu: Some(1450),
        sandbox: sandbox.map(str::to_owned),
        other: Map::new(),
    };
    let gateway = Some("169.254.1.1".parse().unwrap());
    AddResult {
        interfaces: vec![
            end("mini0123456789a", "02:00:00:00:00:01", None),
            end("eth0", "02:00:00:00:00:02", Some("/var/run/netns/cni-0246152e")),
        ],
        ips: vec![Ip { address: "10.244.0.2/32".parse().unwrap(), gateway, interface: Some(1), other: Map::new() }],
        routes: vec![Route { dst: "0.0.0.0/0".parse().unwrap(), gw: gateway, other: Map::new() }],
        ..AddResult::default()
    }
}

/// JSON of any shape, few levels deep, with `keys` in its objects.
fn any_json(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        proptest::sample::select(&["10.0.0.1/24", "10.0.0.7", "fd00::1", "fd00::/64", "02:00:00:00:00:01", ""][..])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(keys), inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}
