//! The environment: where credentials and kubeconfigs may be when nobody says where they are, and what others ask for in it.

use std::path::PathBuf;

use process::Folders;

/// The folders to look into, best first: one's own, then that of the hub on this machine.
pub(crate) fn credential_folders() -> Vec<PathBuf> {
    credential_folders_of(&Folders::of_process())
}

/// The state folder of the hub on this machine.
pub(crate) fn hub_state() -> Option<PathBuf> {
    Folders::of_process().hub_state()
}

fn credential_folders_of(folders: &Folders) -> Vec<PathBuf> {
    let hub = folders.hub_state().map(|state| state.join("admin"));
    folders.config("cluster-proxy").into_iter().chain(hub).collect()
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

fn kubeconfig_of(list: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let listed = list.and_then(|list| std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty()));
    listed.or_else(|| home.map(|home| home.join(".kube/config")))
}

fn variable(name: &str) -> Option<PathBuf> {
    process::environment(name).filter(|text| !text.is_empty()).map(PathBuf::from)
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
        let environment = |name: &str| match name {
            "HOME" => Some(home.into()),
            "XDG_CONFIG_HOME" => config.map(Into::into),
            _ => state.map(Into::into),
        };
        let folders = credential_folders_of(&Folders::new(&environment, false));
        folders.iter().map(|folder| folder.display().to_string()).collect()
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
