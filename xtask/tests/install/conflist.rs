use std::{fs, process::Command, thread::sleep, time::Duration};

use serde_json::{Value, json};

use super::{CONFLIST, Runtime, assert_reaches, eventually, lab, names, problems};

#[test]
fn the_configuration_appears_only_when_pods_can_be_served_and_stays_when_the_daemon_stops() {
    let lab = lab("ready");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    let nodes = fs::read_to_string(lab.nodes_file()).unwrap();
    fs::write(lab.nodes_file(), nodes.replace("name: node1", "name: node9")).unwrap();
    let mut daemon = node.daemon(&lab.nodes_file());
    daemon.args(runtime.options());
    let mut daemon = node.netns.run(|| daemon.spawn().unwrap()).unwrap();
    eventually("the plugin is installed", || runtime.plugin().exists());
    // Nobody knows the node's pod CIDR yet.
    sleep(Duration::from_millis(300));
    assert_eq!(names(&runtime.conf), [""; 0]);
    fs::write(lab.nodes_file(), &nodes).unwrap();
    eventually("the configuration is written", || runtime.conflist().exists());
    assert!(node.state_dir().join("node.json").exists());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    runtime.start(&lab, node);
    node.stop_daemon().unwrap();
    assert_eq!(names(&runtime.conf), [CONFLIST]);
    assert_eq!(names(&runtime.bin), ["bandwidth", "minicni", "portmap"]);
}

#[test]
fn the_plugin_serves_pods_with_what_was_written() {
    let lab = lab("serves");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    runtime.start(&lab, node);
    eventually("the configuration is written", || runtime.conflist().exists());
    let conflist: Value = serde_json::from_slice(&fs::read(runtime.conflist()).unwrap()).unwrap();
    let pods = ["a", "b"].map(|name| {
        let mut pod = node.sandbox(name).unwrap();
        pod.config = conflist["plugins"][0].clone();
        pod.config["name"] = conflist["name"].clone();
        pod.config["cniVersion"] = json!("1.1.0");
        pod.add(node).unwrap();
        pod
    });
    assert_reaches(&pods[0], &pods[1]);
    eventually("all is well", || problems(node) == "[]");
}

#[test]
fn what_somebody_changes_or_removes_is_back_at_once() {
    let lab = lab("back");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    runtime.start(&lab, node);
    eventually("the configuration is written", || runtime.conflist().exists());
    let good = fs::read_to_string(runtime.conflist()).unwrap();
    fs::remove_file(runtime.conflist()).unwrap();
    eventually("the configuration is back", || runtime.conflist().exists());
    fs::write(runtime.conflist(), "{}").unwrap();
    eventually("the configuration is right", || fs::read_to_string(runtime.conflist()).is_ok_and(|text| text == good));
    fs::remove_file(runtime.plugin()).unwrap();
    eventually("the plugin is back", || runtime.plugin().exists());
    // The daemon may put a file back between the removal of the last one and that of the directory.
    eventually("the directory is gone", || fs::remove_dir_all(&runtime.conf).is_ok());
    // What is not there cannot be watched; the timer, or as here any other change, makes it.
    node.run(Command::new("ip").args("link set lo mtu 65000".split(' '))).unwrap();
    fs::remove_file(runtime.plugin()).unwrap();
    eventually("the directory is back", || runtime.conflist().exists());
}

#[test]
fn a_chained_plugin_that_is_missing_is_left_out_until_it_is_there() {
    let lab = lab("missing");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    fs::rename(runtime.bin.join("portmap"), runtime.conf.join("portmap")).unwrap();
    runtime.start(&lab, node);
    eventually("the configuration is written", || runtime.conflist().exists());
    let chains = |plugin: &str| fs::read_to_string(runtime.conflist()).unwrap().contains(plugin);
    assert!(!chains("portmap") && chains("bandwidth"));
    eventually("status says so", || problems(node).contains("portmap left out"));
    fs::rename(runtime.conf.join("portmap"), runtime.bin.join("portmap")).unwrap();
    eventually("portmap is chained", || chains("portmap"));
    eventually("all is well", || problems(node) == "[]");
}

#[test]
fn a_configuration_of_somebody_else_that_comes_first_is_reported_and_left_alone() {
    let lab = lab("earlier");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    let theirs = runtime.conf.join("05-theirs.conflist");
    fs::write(&theirs, "{}").unwrap();
    runtime.start(&lab, node);
    eventually("status says so", || problems(node).contains("05-theirs.conflist"));
    let log = fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("05-theirs.conflist"), "{log}");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "{}");
    fs::remove_file(&theirs).unwrap();
    eventually("all is well", || problems(node) == "[]");
}
