//! Puts the plugin and the network configuration where the container runtime looks for them, and keeps them there.
//!
//! The configuration comes last, when ADD can be served: from then on the runtime sends pods. It stays when the daemon
//! stops, because pods come and go without the daemon, too.

mod conflist;
mod earlier;
mod file;
mod watch;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tracing::info;

use super::problems::{Problem, Problems, Reason};

pub(super) use self::watch::Watch;
pub use self::{conflist::is_ours, file::temporary};

/// The name of the network configuration in its directory.
pub const CONFLIST: &str = "10-minicni.conflist";
/// The name of the plugin in its directory.
pub const PLUGIN: &str = "minicni";

/// Programs are executed by everybody who may.
const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

/// What to install, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The runtime's directory of plugins; `None` installs none.
    pub bin_dir: Option<PathBuf>,
    /// The runtime's directory of network configurations; `None` writes none.
    pub conf_dir: Option<PathBuf>,
    /// The plugin to install; `None` is the one beside this program.
    pub plugin: Option<PathBuf>,
    /// A network configuration to install instead of the built-in one.
    pub template: Option<PathBuf>,
}

/// Why something could not be installed; the others are, and it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    /// A file could not be read, compared or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The configuration to install is not one.
    #[error("{origin} is no network configuration: {why}; what is installed stays")]
    Template {
        /// Where it comes from.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { action, path, source }
}

/// What is installed, as the daemon keeps it.
pub(super) struct Installer {
    options: Options,
    /// The keys that the plugin needs to find what the daemon was told.
    settings: Map<String, Value>,
    ready: bool,
    /// Whether something may have changed since the last look.
    due: bool,
    problems: Problems,
}

impl Installer {
    pub(super) fn new(options: Options, settings: Map<String, Value>) -> Self {
        Self { options, settings, ready: false, due: true, problems: Problems::default() }
    }

    /// Says that something may have changed.
    pub(super) fn look_again(&mut self) {
        self.due = true;
    }

    /// Makes the files what they should be, if anything changed, and says what is wrong. Whoever is `ready` can serve an
    /// ADD.
    pub(super) fn keep(&mut self, ready: bool, problems: &mut Problems) {
        if self.due || self.ready != ready {
            (self.due, self.ready) = (false, ready);
            self.problems = Problems::default();
            let installed = self.keep_plugin();
            self.keep_conflist(installed);
        }
        for Problem { reason, message } in self.problems.all() {
            problems.add(*reason, message);
        }
    }

    /// Installs the plugin; says whether there is one.
    fn keep_plugin(&mut self) -> bool {
        let Some(bin_dir) = &self.options.bin_dir else { return true };
        let target = bin_dir.join(PLUGIN);
        match install_plugin(self.options.plugin.as_deref(), &target) {
            Ok(true) => info!(file = %target.display(), "plugin installed"),
            Ok(false) => {}
            Err(error) => self.problems.add(Reason::PluginNotInstalled, error),
        }
        // An older one serves as well.
        target.is_file()
    }

    fn keep_conflist(&mut self, installed: bool) {
        let Some(conf_dir) = self.options.conf_dir.clone() else { return };
        match earlier::earlier(&conf_dir, CONFLIST) {
            Ok(others) if others.is_empty() => {}
            Ok(others) => self.problems.add(Reason::OtherNetworkConfigurationFirst, format_args!(
                "{} in {} comes before {CONFLIST}: the runtime takes the first, and pods get another network; remove what is \
                 not wanted",
                others.join(", "),
                conf_dir.display(),
            )),
            Err(error) => self.problems.add(Reason::ConfigurationNotInstalled, error),
        }
        if !(self.ready && installed) {
            return;
        }
        let target = conf_dir.join(CONFLIST);
        match self.install_conflist(&target) {
            Ok(true) => info!(file = %target.display(), "network configuration written"),
            Ok(false) => {}
            Err(error) => self.problems.add(Reason::ConfigurationNotInstalled, error),
        }
    }

    fn install_conflist(&mut self, target: &Path) -> Result<bool, InstallError> {
        let template = conflist::Template::read(self.options.template.as_deref())?;
        let bin_dir = self.options.bin_dir.as_deref();
        let is_there = |plugin: &str| bin_dir.is_none_or(|dir| dir.join(plugin).is_file());
        let (mut wanted, missing) = template.filled(&self.settings, is_there);
        if let Some(bin_dir) = bin_dir.filter(|_| !missing.is_empty()) {
            self.problems.add(Reason::ChainedPluginMissing, format_args!(
                "{} left out of {CONFLIST}, because {} has no such plugin: pods do without (hostPort needs portmap, limits \
                 of bandwidth need bandwidth); install the plugins of the CNI project",
                missing.join(" and "),
                bin_dir.display(),
            ));
        }
        match fs::read(target) {
            Ok(found) if template.accepts(&found, &wanted) => return Ok(false),
            Ok(found) => template.carry_over(&found, &mut wanted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", target)(error)),
        }
        let text = format!("{wanted:#}\n");
        file::replace(target, text.as_bytes(), READABLE)?;
        Ok(true)
    }
}

/// Installs the plugin where it is not that already.
fn install_plugin(source: Option<&Path>, target: &Path) -> Result<bool, InstallError> {
    let source = match source {
        Some(source) => source.to_owned(),
        None => env::current_exe().map_err(failed("find", Path::new("/proc/self/exe")))?.with_file_name(PLUGIN),
    };
    let plugin = fs::read(&source).map_err(failed("read", &source))?;
    if file::is(target, &plugin, EXECUTABLE)? {
        return Ok(false);
    }
    file::replace(target, &plugin, EXECUTABLE)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
