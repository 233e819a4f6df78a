use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{add, all::All, churn, datapath, judged::Judged, scale, services, sizes};

/// A benchmark of `bench all`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Datapath,
    Services,
    Add,
    Churn,
    Scale,
    Sizes,
}

impl Part {
    /// In the order in which they run.
    pub(super) const ALL: [Self; 6] =
        [Self::Datapath, Self::Services, Self::Add, Self::Churn, Self::Scale, Self::Sizes];
    /// In the order of their verdicts.
    pub(super) const SHOWN: [Self; 6] =
        [Self::Datapath, Self::Add, Self::Churn, Self::Sizes, Self::Scale, Self::Services];

    /// As in the command line, and in the names of kept files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Services => "services",
            Self::Add => "add",
            Self::Churn => "churn",
            Self::Scale => "scale",
            Self::Sizes => "sizes",
        }
    }

    /// The name of its document, if it has one.
    pub(super) fn document(self) -> Option<&'static str> {
        match self {
            Self::Datapath => Some("performance.md"),
            Self::Services => Some("bench-services.md"),
            Self::Add => Some("bench-add.md"),
            Self::Churn => Some("bench-churn.md"),
            Self::Scale => Some("bench-scale.md"),
            Self::Sizes => None,
        }
    }

    /// The most that it may take on two idle CPUs, without what is built before. In all they are ten of a quick run, and an
    /// hour of a whole one.
    pub(super) fn minutes(self, quick: bool) -> u32 {
        let [whole, short] = match self {
            Self::Datapath => [20, 2],
            Self::Services => [6, 2],
            Self::Add => [5, 1],
            Self::Churn => [12, 2],
            Self::Scale => [15, 2],
            Self::Sizes => [1, 1],
        };
        if quick { short } else { whole }
    }

    pub(super) fn measure(self, all: &mut All, quick: bool) -> Result<()> {
        match self {
            Self::Datapath => all.datapath = Some(datapath::measured(quick, None, None)?),
            Self::Services => all.services = Some(services::measured(quick)?),
            Self::Add => all.add = Some(add::measured(quick)?),
            Self::Churn => all.churn = Some(churn::measured(quick)?),
            Self::Scale => all.scale = Some(scale::measured(quick)?),
            Self::Sizes => all.sizes = Some(sizes::measured()?),
        }
        Ok(())
    }

    /// The verdicts of it; where there are no figures, why.
    pub(super) fn judge(self, all: &All) -> Vec<Judged> {
        let judged = match self {
            Self::Datapath => all.datapath.as_ref().map(|report| datapath::judge_all(report, all.counted.as_ref())),
            Self::Services => all.services.as_ref().map(services::judge),
            Self::Add => all.add.as_ref().map(add::judge),
            Self::Churn => all.churn.as_ref().map(churn::judge),
            Self::Scale => all.scale.as_ref().map(scale::judge),
            Self::Sizes => all.sizes.as_ref().map(sizes::judge),
        };
        let not_measured = |(id, what): &(&'static str, &str)| Judged::not_measured(id, what, all.why_not(self));
        judged.unwrap_or_else(|| self.targets().iter().map(not_measured).collect())
    }

    /// What it is to find, for those who did not measure it.
    fn targets(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Datapath => &[
                ("D1", "request/response, same CPU, beside routing with conntrack"),
                ("D2", "request/response, same CPU, beside routing without netfilter"),
                ("D3", "request/response, same CPU, beside a direct veth pair"),
                ("D4", "request/response, different CPUs"),
                ("D5", "request/response, same CPU, beside a bridge"),
                ("D6", "TCP stream"),
                ("D7", "TCP connect, request, close"),
                ("D8", "CPU per UDP datagram"),
                ("D9", "our program on a packet that it redirects"),
                ("D10", "request/response with many pods and routes"),
                ("D11", "request/response by ClusterIP"),
                ("F1", "request/response, same CPU, beside a flowtable"),
                ("X1", "request/response between nodes"),
                ("X2", "request/response between nodes, beside host to host"),
                ("X3", "TCP stream between nodes, beside VXLAN"),
            ],
            // These are some of the datapath's, on nodes with many rules.
            Self::Services => &[],
            Self::Add => &[
                ("C1", "ADD"),
                ("C2", "ADD, IPv4 and IPv6"),
                ("C3", "ADD with many pods present"),
                ("S4", "STATUS, CHECK and VERSION"),
            ],
            Self::Churn => &[
                ("C4", "many ADDs at once"),
                ("C5", "many DELs at once"),
                ("C6", "ADD during DELs"),
                ("C8", "first packets lost"),
            ],
            Self::Scale => &[
                ("M1", "resident memory of the daemon"),
                ("M2", "CPU time of the daemon"),
                ("S1", "a node's creation or deletion until its route"),
                ("S2", "exec until all routes are in the kernel"),
            ],
            Self::Sizes => &[("M3", "size of the plugin and of the image")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_takes_ten_minutes_and_a_whole_one_an_hour() {
        let minutes = |quick| Part::ALL.into_iter().map(|part| part.minutes(quick)).sum::<u32>();
        assert!(minutes(true) <= 10 && minutes(false) <= 60);
    }
}
