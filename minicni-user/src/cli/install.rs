use std::path::PathBuf;

use clap::Args;

use crate::daemon::install::Options;

/// What `minicnid run` installs. Nothing is installed where nobody says.
#[derive(Args, Debug)]
pub(super) struct Install {
    /// Install the plugin into this directory, such as /opt/cni/bin
    #[arg(long, value_name = "DIR", env = "MINICNI_CNI_BIN_DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Write the network configuration into this directory, such as /etc/cni/net.d, once pods can be served
    #[arg(long, value_name = "DIR", env = "MINICNI_CNI_CONF_DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// The plugin to install [default: minicni beside this program]
    #[arg(long, value_name = "FILE", env = "MINICNI_PLUGIN")]
    plugin: Option<PathBuf>,
    /// The network configuration to write [default: one with portmap and bandwidth behind minicni]
    #[arg(long, value_name = "FILE", env = "MINICNI_CONFLIST_TEMPLATE")]
    conflist_template: Option<PathBuf>,
}

impl Install {
    pub(super) fn options(self) -> Options {
        let Self { cni_bin_dir, cni_conf_dir, plugin, conflist_template } = self;
        Options { bin_dir: cni_bin_dir, conf_dir: cni_conf_dir, plugin, template: conflist_template }
    }
}
