//! The environment: where credentials may be when nobody says where they are.

use std::path::PathBuf;

/// The folders to look into, best first.
pub(crate) fn credential_folders() -> Vec<PathBuf> {
    folders(variable("XDG_CONFIG_HOME"), variable("HOME"), proxy_server::config::default_state())
}

/// The order as a function of its inputs.
fn folders(config_home: Option<PathBuf>, home: Option<PathBuf>, hub_state: Option<PathBuf>) -> Vec<PathBuf> {
    let own = config_home.or_else(|| home.map(|home| home.join(".config")));
    let own = own.map(|folder| folder.join("cluster-proxy"));
    own.into_iter().chain(hub_state.map(|state| state.join("admin"))).collect()
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var(name).ok().map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn ones_own_folder_comes_before_the_hubs() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            folders(None, path("/home/a"), path("/var/lib/cluster-proxy")),
            [Path::new("/home/a/.config/cluster-proxy"), Path::new("/var/lib/cluster-proxy/admin")]
        );
        assert_eq!(folders(path("/xdg"), path("/home/a"), None), [Path::new("/xdg/cluster-proxy")]);
        assert!(folders(None, None, None).is_empty());
    }
}
