//! The environment: where credentials and kubeconfigs may be when nobody says where they are, and what others ask for in it.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// What the environment says about folders.
#[derive(Debug, Default)]
struct Homes {
    home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    config: Option<PathBuf>,
    /// `XDG_STATE_HOME`
    state: Option<PathBuf>,
}

/// The folders to look into, best first: one's own, then that of the hub on this machine.
pub(crate) fn credential_folders() -> Vec<PathBuf> {
    homes().credential_folders()
}

/// The state folder of the hub on this machine.
pub(crate) fn hub_state() -> Option<PathBuf> {
    homes().hub_state()
}

/// The kubeconfig that kubectl changes: the first of `KUBECONFIG`, else the one in the home folder.
pub(crate) fn kubeconfig() -> Option<PathBuf> {
    kubeconfig_of(variable("KUBECONFIG"), variable("HOME"))
}

/// What kubectl tells its credential plug-ins.
pub(crate) fn exec_info() -> Option<String> {
    variable("KUBERNETES_EXEC_INFO").map(|info| info.to_string_lossy().into_owned())
}

/// The user's choice of a browser.
pub(crate) fn browser() -> Option<PathBuf> {
    variable("BROWSER")
}

fn homes() -> Homes {
    // A job of the machine has no HOME.
    let home = variable("HOME").or_else(|| Uid::effective().is_root().then(|| "/root".into()));
    Homes { home, config: variable("XDG_CONFIG_HOME"), state: variable("XDG_STATE_HOME") }
}

fn kubeconfig_of(list: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let listed = list.and_then(|list| std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty()));
    listed.or_else(|| home.map(|home| home.join(".kube/config")))
}

impl Homes {
    fn credential_folders(&self) -> Vec<PathBuf> {
        let own = self.config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        let own = own.map(|folder| folder.join("cluster-proxy"));
        own.into_iter().chain(self.hub_state().map(|state| state.join("admin"))).collect()
    }

    /// Where 'proxy-server' keeps its state unless told otherwise. Said here again, since only the demonstration may
    /// know the server; its test holds the two together.
    fn hub_state(&self) -> Option<PathBuf> {
        if self.home.as_deref() == Some(Path::new("/root")) {
            return Some("/var/lib/cluster-proxy".into());
        }
        let states = self.state.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/state")));
        states.map(|states| states.join("cluster-proxy"))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_kubeconfig_that_is_named_is_the_one_to_change() {
        let of = |list: &str| kubeconfig_of(Some(list.into()), Some("/home/a".into()));
        assert_eq!(of("/x:/y"), Some("/x".into()));
        assert_eq!(of(":/y"), Some("/y".into()));
        assert_eq!(of(""), Some("/home/a/.kube/config".into()));
        assert_eq!(kubeconfig_of(None, None), None);
    }

    fn folders(home: &str, config: Option<&str>, state: Option<&str>) -> Vec<String> {
        let path = |text: &str| Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
        let homes = Homes { home: path(home), config: config.and_then(path), state: state.and_then(path) };
        homes.credential_folders().iter().map(|folder| folder.display().to_string()).collect()
    }

    #[test]
    fn ones_own_folder_comes_before_the_hubs() {
        assert_eq!(
            folders("/home/a", None, None),
            ["/home/a/.config/cluster-proxy", "/home/a/.local/state/cluster-proxy/admin"]
        );
        assert_eq!(folders("/root", None, None), ["/root/.config/cluster-proxy", "/var/lib/cluster-proxy/admin"]);
        assert_eq!(folders("/home/a", Some("/c"), Some("/s")), ["/c/cluster-proxy", "/s/cluster-proxy/admin"]);
        assert!(folders("", None, None).is_empty());
    }
}
