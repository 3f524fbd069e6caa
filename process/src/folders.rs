//! Where programs keep what is theirs when nobody says where (XDG Base Directory Specification).

use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::settings::Environment;

/// The home folder of root, whose programs are services of the machine.
const ROOT: &str = "/root";

/// The folders that the environment tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    pub home: Option<PathBuf>,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl Folders {
    /// What the environment of a user, or of root, says. A relative path counts as none.
    pub fn new(environment: Environment<'_>, is_root: bool) -> Self {
        let folder = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // A job of the machine has no HOME.
        let home = folder("HOME").or_else(|| is_root.then(|| ROOT.into()));
        Self { home, config: folder("XDG_CONFIG_HOME"), state: folder("XDG_STATE_HOME") }
    }

    /// Root's.
    pub fn of_root() -> Self {
        Self { home: Some(ROOT.into()), ..Self::default() }
    }

    /// This process'.
    pub fn of_process() -> Self {
        Self::new(&crate::environment, Uid::effective().is_root())
    }

    /// Where a program's configuration is.
    pub fn config(&self, program: &str) -> Option<PathBuf> {
        let all = self.config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        all.map(|all| all.join(program))
    }

    /// Where a hub keeps its state; on its machine, the command looks there for its administrator's credentials.
    pub fn hub_state(&self) -> Option<PathBuf> {
        self.state("cluster-proxy")
    }

    /// Where a program keeps its state: the machine's folder for root.
    pub fn state(&self, program: &str) -> Option<PathBuf> {
        if self.home.as_deref() == Some(Path::new(ROOT)) {
            return Some(Path::new("/var/lib").join(program));
        }
        let all = self.state.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/state")));
        all.map(|all| all.join(program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_users_or_the_machines() {
        let state = |environment: &[(&str, &str)], is_root| {
            let find = |name: &str| environment.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into());
            Folders::new(&find, is_root).state("p").map(|path| path.display().to_string())
        };
        for (environment, is_root, expected) in [
            (&[][..], true, Some("/var/lib/p")),
            (&[], false, None),
            (&[("HOME", "/root")], true, Some("/var/lib/p")),
            (&[("HOME", "")], false, None),
            (&[("HOME", "/h")], true, Some("/h/.local/state/p")),
            (&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], false, Some("/x/p")),
            (&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], false, Some("/h/.local/state/p")),
        ] {
            assert_eq!(state(environment, is_root).as_deref(), expected, "{environment:?}");
        }
        assert_eq!(Folders::of_root().state("p"), Some("/var/lib/p".into()));
    }
}
