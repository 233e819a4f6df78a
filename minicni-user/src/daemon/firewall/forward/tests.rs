use proptest::prelude::*;

use super::*;

const DOCKER: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [7:420]\n:OUTPUT ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n\
                      -A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n";

fn pods() -> Vec<IpNet> {
    vec!["10.244.1.0/24".parse().unwrap()]
}

/// What `iptables-save` prints after a script was restored, for the lines that these scripts have.
fn restored(saved: &str, script: &str) -> String {
    let mut lines: Vec<String> = saved.lines().map(str::to_owned).collect();
    for line in script.lines() {
        let commit = lines.len() - 1;
        if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
            lines.retain(|old| !old.starts_with(&format!("-A {chain} ")) && !old.starts_with(&format!(":{chain} ")));
            lines.insert(1, line.to_owned());
        } else if line.starts_with("-A") {
            lines.insert(commit, line.to_owned());
        } else if line.starts_with("-D") {
            let rule = line.replacen("-D", "-A", 1);
            lines.remove(lines.iter().position(|old| *old == rule).unwrap());
        } else if let Some(chain) = line.strip_prefix("-X ") {
            assert!(!lines.iter().any(|old| old.starts_with("-A") && old.contains(chain)), "{lines:?}");
            lines.retain(|old| !old.starts_with(&format!(":{chain} ")));
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn a_policy_of_drop_gets_one_rule_at_the_end_and_no_second_one() {
    let script = Saved::parse(DOCKER).script(&pods()).unwrap();
    let after = restored(DOCKER, &script);
    let forward: Vec<_> = after.lines().filter(|line| line.starts_with("-A FORWARD")).collect();
    assert_eq!(forward, ["-A FORWARD -j DOCKER-USER", &format!("-A FORWARD {COMMENT} -j {CHAIN}")]);
    assert!(after.contains(&format!("-A {CHAIN} -s 10.244.1.0/24 {COMMENT} -j ACCEPT\n")), "{after}");
    assert!(after.contains(&format!("-A {CHAIN} -d 10.244.1.0/24 {COMMENT} -j ACCEPT\n")), "{after}");
    assert_eq!(Saved::parse(&after).script(&pods()), None);
    let removal = Saved::parse(&after).script(&[]).unwrap();
    assert_eq!(restored(&after, &removal), DOCKER);
    assert_eq!(Saved::parse(DOCKER).script(&[]), None);
}

#[test]
fn a_policy_is_read_as_iptables_prints_it() {
    assert!(Saved::parse(DOCKER).drops);
    assert!(!Saved::parse(&DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT")).drops);
    assert_eq!(Saved::parse(""), Saved::default());
}

proptest! {
    /// Whatever of ours is damaged, one script repairs it, another removes it, and the rest stays.
    #[test]
    fn any_damage_to_our_rules_is_repaired_at_once(
        damage in proptest::collection::vec((0..4u8, any::<prop::sample::Index>()), 0..4),
    ) {
        let script = Saved::parse(DOCKER).script(&pods()).unwrap();
        let mut lines: Vec<String> = restored(DOCKER, &script).lines().map(str::to_owned).collect();
        for (kind, at) in damage {
            let ours: Vec<usize> =
                (0..lines.len()).filter(|line| lines[*line].starts_with("-A") && lines[*line].contains(CHAIN)).collect();
            let end = lines.len() - 1;
            match (kind, ours.is_empty()) {
                (0, false) => drop(lines.remove(ours[at.index(ours.len())])),
                (1, false) => {
                    let line = lines[ours[at.index(ours.len())]].clone();
                    lines.insert(end, line);
                }
                (2, _) => lines.insert(end, format!("-A {CHAIN} -p tcp -j ACCEPT")),
                _ => lines.insert(end, format!("-A FORWARD -p tcp -j {CHAIN}")),
            }
        }
        let damaged = lines.join("\n") + "\n";
        let repaired = match Saved::parse(&damaged).script(&pods()) {
            Some(script) => restored(&damaged, &script),
            None => damaged.clone(),
        };
        prop_assert_eq!(Saved::parse(&repaired).script(&pods()), None);
        let removed = match Saved::parse(&damaged).script(&[]) {
            Some(script) => restored(&damaged, &script),
            None => damaged,
        };
        prop_assert_eq!(removed, DOCKER);
    }
}
