//! What a hub takes back from the one before it, which drains with the rights that it knew: lines of a file, whose lock is the sign.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use certs::{ClusterName, KeyFingerprint, UserName};
use registry::{
    Change, Registry,
    kube::rbac::{Losers, Policy},
};
use tokio::time::sleep;

use crate::{
    caller::Caller,
    succession::{LOOK, Raised, Sign},
};

/// Whose connections end, as they may have lost the right to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recalled {
    User(UserName),
    Cluster(ClusterName),
    All,
}

/// The telling end.
#[derive(Debug, Default)]
pub(crate) struct Recalls(Option<(Raised, File)>);

impl Recalled {
    pub(crate) fn concerns(&self, caller: &Caller, cluster: &ClusterName) -> bool {
        match self {
            Self::User(name) => caller.is_user(name),
            Self::Cluster(name) => cluster == name,
            Self::All => true,
        }
    }

    fn line(&self) -> String {
        match self {
            Self::User(name) => format!("user {name}\n"),
            Self::Cluster(name) => format!("cluster {name}\n"),
            Self::All => String::from("all\n"),
        }
    }

    /// What is not understood may be anything.
    fn read(line: &str) -> Self {
        let named = match line.split_once(' ') {
            Some(("user", name)) => name.parse().ok().map(Self::User),
            Some(("cluster", name)) => name.parse().ok().map(Self::Cluster),
            Some(_) | None => None,
        };
        named.unwrap_or(Self::All)
    }
}

impl Recalls {
    /// Tells the hub before this one; where the file takes no line, that all ends.
    pub(crate) async fn tell(&mut self, recalled: &Recalled, folder: &Path) -> io::Result<()> {
        let line = recalled.line();
        if let Some((_, file)) = &mut self.0 {
            return file.write_all(line.as_bytes()).or_else(|_| file.set_len(0));
        }
        // The line first: a sign without one is for all.
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(Sign::Recall.path(folder));
        let mut file = file?;
        file.set_len(0)?;
        if file.write_all(line.as_bytes()).is_err() {
            file.set_len(0)?;
        }
        self.0 = Some((Sign::Recall.raise_soon(folder).await?, file));
        Ok(())
    }
}

/// The rights as they were at the last look.
#[derive(Debug)]
pub(crate) struct Rights {
    policy: Policy,
    /// The keys of each cluster's agents, and its sets.
    clusters: HashMap<ClusterName, (HashSet<KeyFingerprint>, HashSet<String>)>,
}

impl Rights {
    pub(crate) fn of(registry: &Registry) -> Self {
        let names = registry.clusters().into_iter().map(|cluster| cluster.name().clone());
        let clusters = names.map(|name| (name.clone(), Self::of_cluster(registry, &name))).collect();
        Self { policy: registry.with_policy(Policy::clone), clusters }
    }

    fn of_cluster(registry: &Registry, name: &ClusterName) -> (HashSet<KeyFingerprint>, HashSet<String>) {
        let cluster = registry.cluster(name);
        let keys = cluster.iter().flat_map(|cluster| cluster.admitted()).map(|agent| agent.key).collect();
        let sets = registry.with_policy(|policy| policy.sets_of(name.as_ref()).map(str::to_owned).collect());
        (keys, sets)
    }

    /// What a change may have taken from whom. Agents that come are a change of a cluster, too.
    pub(crate) fn lost(&mut self, registry: &Registry, change: Change) -> Vec<Recalled> {
        match change {
            Change::Cluster(name) => {
                let now = Self::of_cluster(registry, &name);
                let kept = self
                    .clusters
                    .get(&name)
                    .is_none_or(|(keys, sets)| keys.is_subset(&now.0) && sets.is_subset(&now.1));
                self.clusters.insert(name.clone(), now);
                if kept {
                    return Vec::new();
                }
                self.policy = registry.with_policy(Policy::clone);
                vec![Recalled::Cluster(name)]
            }
            Change::User(name) => vec![Recalled::User(name)],
            Change::Set(_) | Change::Rights(_) => {
                let now = registry.with_policy(Policy::clone);
                let losers = now.losers_since(&self.policy);
                self.policy = now;
                match losers {
                    // A name that no user can have is no user's.
                    Losers::Users(users) => {
                        users.iter().filter_map(|user| user.parse().ok()).map(Recalled::User).collect()
                    }
                    Losers::Anybody => vec![Recalled::All],
                }
            }
            // Nobody is connected by a join token.
            Change::Token(_) => Vec::new(),
        }
    }
}

/// Says what the hub that follows takes back, as long as it is polled.
pub(crate) async fn heed(folder: &Path, mut recalled: impl FnMut(&Recalled)) {
    let mut done = 0;
    loop {
        // Whoever raises it has begun the file anew.
        if !Sign::Recall.stands(folder) {
            done = 0;
            Sign::Recall.raised(folder).await;
        }
        let text = fs::read_to_string(Sign::Recall.path(folder)).unwrap_or_default();
        if text.is_empty() {
            recalled(&Recalled::All);
        }
        let end = text.rfind('\n').map_or(0, |last| last + 1);
        text.get(done..end).unwrap_or_default().lines().for_each(|line| recalled(&Recalled::read(line)));
        done = end;
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use super::*;

    #[tokio::test]
    async fn what_is_told_is_heeded_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let told = [
            Recalled::User("bob".parse().unwrap()),
            Recalled::Cluster("c1".parse().unwrap()),
            Recalled::User("bob".parse().unwrap()),
            Recalled::All,
        ];
        fs::write(Sign::Recall.path(folder.path()), "user of-another-handover\n").unwrap();
        let heard = RefCell::new(Vec::new());
        let telling = async {
            let mut recalls = Recalls::default();
            for one in &told {
                recalls.tell(one, folder.path()).await.unwrap();
                while heard.borrow().last() != Some(one) {
                    sleep(LOOK).await;
                }
            }
            // One that takes its place after it has died tells as much.
            drop(recalls);
            sleep(4 * LOOK).await;
            heard.borrow_mut().clear();
            let mut recalls = Recalls::default();
            for one in &told {
                recalls.tell(one, folder.path()).await.unwrap();
            }
            while heard.borrow().len() < told.len() {
                sleep(LOOK).await;
            }
        };
        let heeding = heed(folder.path(), |recalled| heard.borrow_mut().push(recalled.clone()));
        let both = async {
            tokio::select! { () = telling => {}, () = heeding => {} }
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert_eq!(*heard.borrow(), told);
    }

    #[tokio::test]
    async fn a_sign_without_a_line_is_for_all_and_so_is_one_that_nobody_understands() {
        let folder = tempfile::tempdir().unwrap();
        let _raised = Sign::Recall.raise(folder.path()).unwrap().unwrap();
        let heard = RefCell::new(None);
        let heeding = heed(folder.path(), |recalled| *heard.borrow_mut() = Some(recalled.clone()));
        tokio::time::timeout(2 * LOOK, heeding).await.unwrap_err();
        assert_eq!(*heard.borrow(), Some(Recalled::All));
        for line in ["user ", "user a/b", "clusters c1", "", "\0"] {
            assert_eq!(Recalled::read(line), Recalled::All, "{line}");
        }
    }
}
