//! Calls recorded from containerd 2.4 and 1.6, cnitool and libcni: the whole environment, an empty line, standard input.

use std::path::Path;

use serde_json::json;

use super::super::{Attachment, Command, Request, Requested, ValidAttachments, Version, get_ignore_case};
use super::{Answering, Outcome, call, data};

fn replay(plugin: &Answering, recording: &Path) -> Outcome {
    let text = std::fs::read_to_string(recording).unwrap();
    let (environment, stdin) = text.split_once("\n\n").unwrap();
    let variables: Vec<_> = environment
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    call(plugin, &variables, stdin)
}

fn request(recording: &str) -> Request {
    let plugin = Answering::default();
    assert_eq!(replay(&plugin, &data(&format!("calls/{recording}.txt"))).status, 0, "{recording}");
    plugin.requests.into_inner().pop().unwrap()
}

#[test]
fn every_recorded_call_is_served_with_one_document_for_add_and_nothing_for_the_others() {
    let mut recordings = 0;
    for entry in std::fs::read_dir(data("calls")).unwrap() {
        let path = entry.unwrap().path();
        let plugin = Answering::attaching();
        let outcome = replay(&plugin, &path);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{path:?}: {outcome:?}");
        let request = plugin.requests.into_inner().pop().unwrap();
        assert_eq!(request.requested().unwrap(), Requested::default(), "{path:?}");
        if request.environment.command == Command::Add {
            assert_eq!(outcome.json()["cniVersion"], request.config.cni_version.as_str(), "{path:?}");
        } else {
            assert_eq!(outcome.stdout, "", "{path:?}");
        }
        recordings += 1;
    }
    assert_eq!(recordings, 31);
}

#[test]
fn a_chained_add_that_makes_nothing_passes_the_recorded_result_on_unchanged() {
    for recording in ["containerd-1.6-add-chained", "containerd-2.4-add-chained"] {
        let plugin = Answering::default();
        let outcome = replay(&plugin, &data(&format!("calls/{recording}.txt")));
        let previous = plugin.requests.into_inner().pop().unwrap().config.prev_result;
        assert_eq!(Some(outcome.json()), previous, "{recording}");
    }
}

#[test]
fn containerds_add_names_the_pod() {
    let request = request("containerd-2.4-add");
    let environment = &request.environment;
    let id = "6988a7347d1d6cb26d64494aaccd920b44206865e4e800b0f53cb2a4b8af62aa";
    assert_eq!((environment.container_id.as_str(), environment.ifname.as_str()), (id, "eth0"));
    let netns = Path::new("/var/run/netns/cni-0246152e-2214-7817-7f68-7e7b48df7630");
    assert_eq!(environment.netns.as_deref(), Some(netns));
    assert_eq!(environment.cni_path.as_deref(), Some("/opt/cni/bin"));
    assert!(!environment.netns_override);
    assert_eq!(environment.args.get("K8S_POD_NAMESPACE"), Some("default"));
    assert_eq!(environment.args.get("K8S_POD_NAME"), Some("a"));
    assert_eq!(request.config.cni_version, Version::V1_1_0);
    assert_eq!(request.config.name, "standin");
    assert_eq!(request.config.raw["isGateway"], true);
}

#[test]
fn containerds_port_mappings_are_found_despite_their_upper_case() {
    for recording in ["containerd-2.4-add-chained", "containerd-1.6-del-chained-late"] {
        let config = request(recording).config;
        let mappings = get_ignore_case(&config.runtime_config, "portMappings").unwrap();
        let mapping = mappings[0].as_object().unwrap();
        assert_eq!(get_ignore_case(mapping, "hostPort"), Some(&json!(8080)));
        assert_eq!(get_ignore_case(mapping, "protocol"), Some(&json!("tcp")));
    }
}

#[test]
fn containerds_late_del_comes_without_namespace_and_result() {
    let request = request("containerd-1.6-del-late");
    assert_eq!(request.environment.command, Command::Del);
    assert_eq!((request.environment.netns, request.config.prev_result), (None, None));
}

#[test]
fn libcnis_gc_lists_the_valid_attachments() {
    let container_id = "6988a7347d1d6cb26d64494aaccd920b44206865e4e800b0f53cb2a4b8af62aa".to_owned();
    let attachment = Attachment { container_id, ifname: "eth0".into() };
    assert_eq!(request("libcni-gc").config.valid_attachments, ValidAttachments::Listed(vec![attachment]));
}

#[test]
fn cnitools_check_brings_the_result_of_the_add() {
    let result = request("cnitool-check").config.prev_result.unwrap();
    assert_eq!(result["ips"][1]["address"], "fd44::a/64");
}
