use std::{fs, io::Write as _, path::PathBuf, process::Stdio, thread, time::Duration};

use xtask::lab::{Node, Pod, Programs};

use super::{CONFLIST, Runtime, eventually, lab, names, uninstall::said};

/// Executes an installed plugin; says whether it answered as it should.
fn call(plugin: &PathBuf, node: &Node, pod: &Pod, command: &str) -> Result<(), String> {
    let given = pod.command(command);
    let mut installed = std::process::Command::new(plugin);
    installed.env_clear().envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    installed.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = node.netns.run(|| installed.spawn()).unwrap().map_err(|error| error.to_string())?;
    child.stdin.take().unwrap().write_all(pod.config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
}

#[test]
fn the_plugin_is_replaced_again_and_again_while_pods_come_and_go_and_no_call_fails() {
    let lab = lab("replaced");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    runtime.start(&lab, node);
    eventually("the plugin is installed", || runtime.plugin().exists());
    let good = fs::read(Programs::beside_us().unwrap().minicni).unwrap();
    let pod = node.sandbox("a").unwrap();
    // Other builds: the same with something behind it. Written beforehand, since a process that is forked meanwhile would hold
    // the file open for writing, and nobody could execute it.
    let others: Vec<_> = (0..20).map(|round| runtime.bin.join(format!(".another{round}"))).collect();
    for (round, other) in (0..).zip(&others) {
        fs::write(other, [&good[..], &[round]].concat()).unwrap();
        fs::set_permissions(other, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let calls = thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            let mut replaced = 0;
            for other in &others {
                fs::rename(other, runtime.plugin()).unwrap();
                eventually("the plugin is ours again", || fs::read(runtime.plugin()).is_ok_and(|now| now == good));
                replaced += 1;
            }
            replaced
        });
        let mut calls = 0;
        while !replacing.is_finished() {
            for command in ["ADD", "DEL"] {
                call(&runtime.plugin(), node, &pod, command).unwrap();
                calls += 1;
            }
        }
        assert_eq!(replacing.join().unwrap(), 20);
        calls
    });
    assert!(calls > 20, "{calls}");
}

#[test]
fn a_daemon_killed_at_any_moment_of_its_start_leaves_no_half_file_and_the_next_one_completes() {
    let lab = lab("killed");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    let good = fs::read(Programs::beside_us().unwrap().minicni).unwrap();
    let mut stages = std::collections::BTreeSet::new();
    let mut delay = 0;
    while !stages.contains(&(true, true)) {
        delay += 5 + delay / 10;
        assert!(delay < 20_000, "nothing is installed");
        for file in [runtime.plugin(), runtime.conflist()] {
            let _ = fs::remove_file(file);
        }
        let mut daemon = node.daemon(&lab.nodes_file());
        daemon.args(runtime.options()).stderr(Stdio::null());
        let mut daemon = node.netns.run(|| daemon.spawn().unwrap()).unwrap();
        thread::sleep(Duration::from_millis(delay));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let plugin = fs::read(runtime.plugin()).ok();
        let conflist = fs::read(runtime.conflist()).ok();
        stages.insert((plugin.is_some(), conflist.is_some()));
        assert!(plugin.as_ref().is_none_or(|plugin| *plugin == good), "half a plugin after {delay} ms");
        // The configuration comes last.
        assert!(conflist.is_none() || plugin.is_some());
        if let Some(conflist) = conflist {
            serde_json::from_slice::<serde_json::Value>(&conflist).unwrap();
        }
    }
    assert!(stages.contains(&(false, false)), "{stages:?}");
    // As if killed between the two, and in the middle of each.
    fs::remove_file(runtime.conflist()).unwrap();
    fs::write(runtime.bin.join(".minicni.new"), &good[..1000]).unwrap();
    fs::write(runtime.conf.join(".10-minicni.conflist.new"), "{").unwrap();
    fs::write(runtime.plugin(), "an older one").unwrap();
    runtime.start(&lab, node);
    eventually("the configuration is written", || runtime.conflist().exists());
    assert_eq!(fs::read(runtime.plugin()).unwrap(), good);
    assert_eq!(names(&runtime.bin), ["bandwidth", "minicni", "portmap"]);
    assert_eq!(names(&runtime.conf), [CONFLIST]);
}

#[test]
fn the_plugin_is_replaced_before_the_programs_are_loaded_that_an_older_one_does_not_know() {
    let lab = lab("order");
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node);
    runtime.start(&lab, node);
    eventually("the plugin is installed", || runtime.plugin().exists());
    node.stop_daemon().unwrap();
    let good = fs::read(runtime.plugin()).unwrap();
    fs::write(runtime.plugin(), "an older one").unwrap();
    // The pin of a program that is loaded gets this name first.
    let in_the_way = node.pins().program("ingress-new");
    fs::create_dir(&in_the_way).unwrap();
    let mut daemon = node.daemon(&lab.nodes_file());
    daemon.args(runtime.options()).args(["--datapath", "ebpf"]);
    let output = node.netns.run(|| daemon.output().unwrap()).unwrap();
    fs::remove_dir(&in_the_way).unwrap();
    assert!(!output.status.success() && said(&output).contains("ingress-new"), "{}", said(&output));
    assert!(fs::read(runtime.plugin()).unwrap() == good);
}
