use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use serde_json::json;

use super::*;

/// Directories of a runtime that has both chained plugins, and a plugin to install.
struct Bench {
    dir: tempfile::TempDir,
    installer: Installer,
}

impl Bench {
    fn new(settings: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            bin_dir: Some(dir.path().join("bin")),
            conf_dir: Some(dir.path().join("net.d")),
            plugin: Some(dir.path().join("image/minicni")),
            template: Some(dir.path().join("image/template")),
        };
        for file in ["bin/portmap", "bin/bandwidth", "net.d/99-loopback.conf", "image/minicni"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let installer = Installer::new(options, settings.as_object().unwrap().clone());
        Self { dir, installer }.with_built_in_template()
    }

    fn with_built_in_template(mut self) -> Self {
        self.installer.options.template = None;
        self
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn keep(&mut self, ready: bool) -> Vec<String> {
        let mut problems = Problems::default();
        self.installer.look_again();
        self.installer.keep(ready, &mut problems);
        problems.all().iter().map(|problem| format!("{}: {problem}", problem.reason)).collect()
    }

    fn conflist(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("net.d").join(CONFLIST)).unwrap()).unwrap()
    }

    /// Chains plugins of others behind those that are there, and gives the configuration.
    fn chain(&self, types: &[&str]) -> Value {
        let mut chained = self.conflist();
        let others = types.iter().map(|plugin| json!({"type": plugin, "of": "others"}));
        chained["plugins"].as_array_mut().unwrap().extend(others);
        fs::write(self.path("net.d").join(CONFLIST), chained.to_string()).unwrap();
        chained
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

fn types(conflist: &Value) -> Vec<&str> {
    conflist["plugins"].as_array().unwrap().iter().map(|plugin| plugin["type"].as_str().unwrap()).collect()
}

#[test]
fn the_configuration_comes_when_add_can_be_served_and_stays_when_it_cannot() {
    let mut bench = Bench::new(&json!({}));
    assert_eq!(bench.keep(false), [""; 0]);
    assert_eq!(bench.files("net.d"), ["99-loopback.conf"]);
    assert_eq!(bench.files("bin"), ["bandwidth", "minicni", "portmap"]);
    assert_eq!(bench.keep(true), [""; 0]);
    assert_eq!(bench.files("net.d"), [CONFLIST, "99-loopback.conf"]);
    bench.keep(false);
    assert_eq!(bench.files("net.d"), [CONFLIST, "99-loopback.conf"]);
}

#[test]
fn the_built_in_configuration_negotiates_versions_and_chains_portmap_and_bandwidth() {
    let mut bench = Bench::new(&json!({}));
    bench.keep(true);
    let conflist = bench.conflist();
    assert_eq!(conflist["cniVersion"], "1.0.0");
    assert_eq!(conflist["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    assert_eq!(conflist["name"], "pods");
    assert_eq!(types(&conflist), ["minicni", "portmap", "bandwidth"]);
    // Nothing that is the default anyway.
    let minicni = json!({"type": "minicni", "capabilities": {"ips": true, "mac": true, "bandwidth": true}});
    assert_eq!(conflist["plugins"][0], minicni);
}

#[test]
fn a_chained_plugin_that_is_missing_is_left_out_and_told_until_it_is_there() {
    let mut bench = Bench::new(&json!({}));
    fs::remove_file(bench.path("bin/bandwidth")).unwrap();
    let problems = bench.keep(true);
    assert!(problems.len() == 1 && problems[0].starts_with("ChainedPluginMissing: bandwidth left out"), "{problems:?}");
    assert_eq!(types(&bench.conflist()), ["minicni", "portmap"]);
    // Who cannot be limited keeps the fast path.
    assert_eq!(bench.conflist()["plugins"][0]["capabilities"], json!({"ips": true, "mac": true}));
    fs::write(bench.path("bin/bandwidth"), "").unwrap();
    assert_eq!(bench.keep(true), [""; 0]);
    assert_eq!(types(&bench.conflist()), ["minicni", "portmap", "bandwidth"]);
}

#[test]
fn a_configuration_that_somebody_changed_or_removed_is_put_back() {
    let mut bench = Bench::new(&json!({"stateDir": "/run/other"}));
    bench.keep(true);
    let good = bench.conflist();
    assert_eq!(good["plugins"][0]["stateDir"], "/run/other");
    let path = bench.path("net.d").join(CONFLIST);
    for damaged in ["", "{", "[]", &good.to_string().replace("/run/other", "/run/another")] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(bench.keep(true), [""; 0]);
        assert_eq!(bench.conflist(), good, "after {damaged}");
    }
    fs::remove_file(&path).unwrap();
    bench.keep(true);
    assert_eq!(bench.conflist(), good);
}

#[test]
fn what_others_chain_behind_ours_stays() {
    let mut bench = Bench::new(&json!({}));
    bench.keep(true);
    let chained = bench.chain(&["mesh"]);
    bench.keep(true);
    assert_eq!(bench.conflist(), chained);
}

#[test]
fn what_others_chain_stays_in_its_order_where_ours_changes() {
    let mut bench = Bench::new(&json!({}));
    bench.keep(true);
    let chained = bench.chain(&["mesh", "audit"]);
    fs::remove_file(bench.path("bin/bandwidth")).unwrap();
    assert_eq!(bench.keep(true).len(), 1);
    assert_eq!(types(&bench.conflist()), ["minicni", "portmap", "mesh", "audit"]);
    fs::write(bench.path("bin/bandwidth"), "").unwrap();
    assert_eq!(bench.keep(true), [""; 0]);
    assert_eq!(bench.conflist(), chained);
    bench.installer.settings = json!({"mtu": 1400}).as_object().unwrap().clone();
    bench.keep(true);
    let conflist = bench.conflist();
    assert_eq!(conflist["plugins"][0]["mtu"], 1400);
    assert_eq!(types(&conflist), ["minicni", "portmap", "bandwidth", "mesh", "audit"]);
    assert_eq!(conflist["plugins"][3], chained["plugins"][3]);
}

#[test]
fn what_is_chained_in_a_file_that_is_not_ours_is_not_taken_over() {
    let mut bench = Bench::new(&json!({}));
    let theirs = json!({"name": "theirs", "plugins": [{"type": "bridge"}, {"type": "mesh"}]});
    fs::write(bench.path("net.d").join(CONFLIST), theirs.to_string()).unwrap();
    bench.keep(true);
    assert_eq!(types(&bench.conflist()), ["minicni", "portmap", "bandwidth"]);
}

#[test]
fn a_file_that_is_right_is_not_written_again() {
    let mut bench = Bench::new(&json!({}));
    bench.keep(true);
    let inodes = |bench: &Bench| {
        ["bin/minicni", &format!("net.d/{CONFLIST}")].map(|file| fs::metadata(bench.path(file)).unwrap().ino())
    };
    let before = inodes(&bench);
    bench.keep(true);
    assert_eq!(inodes(&bench), before);
}

#[test]
fn the_plugin_is_replaced_when_it_differs_or_cannot_be_executed() {
    let mut bench = Bench::new(&json!({}));
    let target = bench.path("bin/minicni");
    let is_good = || {
        let mode = fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
        fs::read_to_string(&target).unwrap() == "image/minicni" && mode == 0o755
    };
    bench.keep(false);
    assert!(is_good());
    fs::write(&target, "an older one").unwrap();
    bench.keep(false);
    assert!(is_good());
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    bench.keep(false);
    assert!(is_good());
    // What somebody who was killed left is in nobody's way.
    fs::write(temporary(&target), "half").unwrap();
    fs::write(&target, "an older one").unwrap();
    bench.keep(false);
    assert!(is_good());
    assert_eq!(bench.files("bin"), ["bandwidth", "minicni", "portmap"]);
}

#[test]
fn without_any_plugin_no_configuration_is_written_and_with_an_older_one_it_is() {
    let mut bench = Bench::new(&json!({}));
    fs::remove_file(bench.path("image/minicni")).unwrap();
    let problems = bench.keep(true);
    assert!(
        problems.len() == 1
            && problems[0].starts_with("PluginNotInstalled: read")
            && problems[0].contains("image/minicni"),
        "{problems:?}"
    );
    assert_eq!(bench.files("net.d"), ["99-loopback.conf"]);
    fs::write(bench.path("bin/minicni"), "an older one").unwrap();
    assert_eq!(bench.keep(true).len(), 1);
    assert_eq!(bench.files("net.d"), [CONFLIST, "99-loopback.conf"]);
}

#[test]
fn configurations_that_a_runtime_takes_before_ours_are_told_and_left_alone() {
    let mut bench = Bench::new(&json!({}));
    for file in ["05-other.conflist", ".hidden.json", "10-aa.conf", "09-no.conf.bak", "10-minicni.conflist.conf"] {
        fs::write(bench.path("net.d").join(file), "theirs").unwrap();
    }
    fs::create_dir(bench.path("net.d/01-directory.conf")).unwrap();
    let problems = bench.keep(true);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("OtherNetworkConfigurationFirst: .hidden.json, 05-other.conflist, 10-aa.conf in "),
        "{problems:?}"
    );
    assert_eq!(fs::read_to_string(bench.path("net.d/05-other.conflist")).unwrap(), "theirs");
    // Ours is there for when they are gone.
    assert_eq!(types(&bench.conflist()).len(), 3);
}

#[test]
fn a_template_is_taken_as_it_is_and_a_wrong_one_is_told_and_changes_nothing() {
    let mut bench = Bench::new(&json!({"mtu": 1400, "datapath": "route"}));
    let template = bench.path("image/template");
    bench.installer.options.template = Some(template.clone());
    fs::write(&template, json!({"name": "other", "plugins": [{"type": "minicni", "mtu": 1300}]}).to_string()).unwrap();
    assert_eq!(bench.keep(true), [""; 0]);
    let good = bench.conflist();
    let plugins = json!([{"type": "minicni", "mtu": 1300, "datapath": "route"}]);
    assert_eq!(good, json!({"name": "other", "plugins": plugins}));
    for (wrong, words) in [
        ("{", "line 1"),
        (r#"{"plugins": [{"type": "minicni"}]}"#, "name is missing"),
        (r#"{"name": "x", "plugins": [{"type": "bridge"}]}"#, "none of type minicni"),
        (r#"{"name": "x", "plugins": {}}"#, "none of type minicni"),
    ] {
        fs::write(&template, wrong).unwrap();
        let problems = bench.keep(true);
        assert!(problems.len() == 1 && problems[0].contains(words) && problems[0].contains("template"), "{problems:?}");
        assert_eq!(bench.conflist(), good);
    }
}
