//! Tests of the registry as a whole, on a real store.

mod admission;
mod presence;
mod user_tokens;

use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinSet;

use super::*;
use crate::cluster::{AcceptanceStatus, ClusterAgent};
use crate::user::{ClusterScope, Login, MAX_USER_VALIDITY, NewUser, Role};
use store::Revision;

struct Fixture {
    folder: TempDir,
    registry: Arc<Registry>,
}

/// What an administrator does through the Kubernetes API.
impl Registry {
    async fn accept(&self, name: &ClusterName, shown: &[ShownAgent], now: Timestamp) -> Result<(), ClusterError> {
        let accept = |cluster: &mut ManagedCluster| {
            shown.iter().try_for_each(|agent| decide(cluster, agent, AgentPhase::Accepted))?;
            cluster.accept();
            Ok(())
        };
        self.update_cluster(name, now, accept).await
    }

    async fn deny(&self, name: &ClusterName, now: Timestamp) -> Result<(), ClusterError> {
        let deny = |cluster: &mut ManagedCluster| {
            cluster.deny(now);
            Ok(())
        };
        self.update_cluster(name, now, deny).await
    }

    async fn delete_cluster(&self, name: &ClusterName) -> Result<(), ClusterError> {
        let known = self.cluster(name).ok_or_else(|| ClusterError::Unknown { cluster: name.clone() })?;
        let deleted = self.store.commit(Txn::new().delete(Change::Cluster(known.name().clone()).key())).await;
        deleted.map(drop).map_err(|source| ClusterError::Store { cluster: name.clone(), source })
    }
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(folder.path().join("registry.redb")).unwrap());
        Self { folder, registry }
    }

    async fn reopened(self) -> Self {
        let Self { folder, registry } = self;
        registry.close().await;
        drop(registry);
        let registry = Arc::new(Registry::open(folder.path().join("registry.redb")).unwrap());
        Self { folder, registry }
    }

    async fn token(&self, new: NewToken) -> SecretString {
        self.registry.create_token(new, at(0)).await.unwrap().1
    }

    async fn join(&self, token: &SecretString, cluster: &str, agent: &str, n: u8) -> Result<Joined, JoinRefusal> {
        self.registry.request_join(ask(token, cluster, agent, n), at(10)).await
    }

    /// The reason of a refused join, which must have written nothing.
    async fn refusal(&self, ask: JoinAsk, now: Timestamp) -> &'static str {
        let before = self.registry.store().list("");
        let refusal = self.registry.request_join(ask, now).await.unwrap_err();
        assert_eq!(self.registry.store().list(""), before, "a refused join wrote something");
        refusal.reason()
    }

    fn standing(&self, cluster: &str) -> Option<AcceptanceStatus> {
        self.registry.cluster(&name(cluster)).map(|cluster| cluster.acceptance())
    }

    /// Who waits, as an admin is shown it.
    fn waiting(&self, cluster: &str) -> Vec<ShownAgent> {
        self.registry.cluster(&name(cluster)).unwrap().waiting().map(ClusterAgent::shown).collect()
    }

    fn admitted(&self, cluster: &str, agent: &str, n: u8) -> bool {
        self.registry.admit_agent(&name(cluster), &name(agent), &key(n)).is_ok()
    }
}

fn name<T: FromStr<Err: fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn key(n: u8) -> KeyFingerprint {
    name(&format!("sha256:{n:064x}"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn ask(token: &SecretString, cluster: &str, agent: &str, n: u8) -> JoinAsk {
    JoinAsk {
        token: token.clone(),
        cluster: (!cluster.is_empty()).then(|| name(cluster)),
        agent: name(agent),
        key: key(n),
        version: "1.0".to_owned(),
        request: Vec::new(),
        address: Some([192, 0, 2, n].into()),
    }
}

/// A single-use token for any cluster, good for an hour.
fn plain() -> NewToken {
    NewToken {
        cluster: None,
        auto_accept: false,
        reusable: false,
        time_to_live: Duration::from_secs(3600),
        created_by: "admin".to_owned(),
    }
}

fn alice(clusters: ClusterScope) -> NewUser {
    let validity = Duration::from_secs(3600);
    NewUser {
        name: name("alice"),
        role: Role::User,
        groups: vec!["dev".to_owned()],
        clusters,
        uid: new_uid(),
        validity,
    }
}

#[tokio::test]
async fn a_cluster_joins_when_both_sides_want_it() {
    let fixture = Fixture::new();
    let token = fixture.token(plain()).await;
    let pending = Joined::Pending { cluster: name("c1") };
    assert_eq!(fixture.join(&token, "c1", "a1", 1).await.unwrap(), pending);
    assert_eq!(fixture.standing("c1"), Some(AcceptanceStatus::Pending));
    assert!(!fixture.admitted("c1", "a1", 1));

    fixture.registry.accept(&name("c1"), &fixture.waiting("c1"), at(20)).await.unwrap();
    let accepted = Joined::Accepted { cluster: name("c1") };
    assert_eq!(fixture.join(&token, "c1", "a1", 1).await.unwrap(), accepted);
    assert!(fixture.admitted("c1", "a1", 1));
    assert!(!fixture.admitted("c1", "a1", 2));

    let fixture = fixture.reopened().await;
    assert!(fixture.admitted("c1", "a1", 1));
    fixture.registry.deny(&name("c1"), at(30)).await.unwrap();
    assert!(!fixture.admitted("c1", "a1", 1));
    assert_eq!(fixture.refusal(ask(&token, "c1", "a1", 1), at(31)).await, "ClusterDenied");
    fixture.registry.accept(&name("c1"), &[], at(40)).await.unwrap();
    assert!(fixture.admitted("c1", "a1", 1));

    fixture.registry.delete_cluster(&name("c1")).await.unwrap();
    assert_eq!(fixture.standing("c1"), None);
    assert_eq!(fixture.refusal(ask(&token, "c1", "a1", 1), at(50)).await, "UsedToken");
}

#[tokio::test]
async fn each_refused_join_has_its_reason_and_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let token = fixture.token(plain()).await;
    let bound = fixture.token(NewToken { cluster: Some(name("c1")), ..plain() }).await;
    let text = token.expose_secret();
    let other_secret =
        SecretString::from(format!("{}{}", &text[..text.len() - 1], if text.ends_with('A') { "E" } else { "A" }));
    for unknown in [SecretString::from("cpj-0123456789.x"), SecretString::from(""), other_secret] {
        assert_eq!(fixture.refusal(ask(&unknown, "c1", "a1", 1), at(1)).await, "UnknownToken");
    }
    assert_eq!(fixture.refusal(ask(&token, "c1", "a1", 1), at(3600)).await, "ExpiredToken");
    assert_eq!(fixture.refusal(ask(&token, "", "a1", 1), at(1)).await, "NoName");
    assert_eq!(fixture.refusal(ask(&bound, "c2", "a1", 1), at(1)).await, "WrongName");
    assert!(fixture.registry.clusters().is_empty());

    fixture.join(&bound, "", "a1", 1).await.unwrap();
    assert_eq!(fixture.refusal(ask(&bound, "c1", "a2", 2), at(1)).await, "UsedToken");
    assert_eq!(fixture.refusal(ask(&token, "c1", "a1", 2), at(1)).await, "AgentNameTaken");

    fixture.registry.close().await;
    assert_eq!(fixture.refusal(ask(&token, "c2", "a1", 1), at(1)).await, "StoreUnavailable");
}

#[tokio::test]
async fn a_token_bound_to_a_name_may_accept_at_once() {
    let fixture = Fixture::new();
    let trusted = NewToken { cluster: Some(name("c1")), auto_accept: true, ..plain() };
    let token = fixture.token(trusted.clone()).await;
    let accepted = Joined::Accepted { cluster: name("c1") };
    assert_eq!(fixture.join(&token, "", "a1", 1).await.unwrap(), accepted);

    let unbound = fixture.token(NewToken { cluster: None, ..trusted.clone() }).await;
    assert_eq!(fixture.join(&unbound, "c1", "a2", 2).await.unwrap(), Joined::Pending { cluster: name("c1") });
    assert!(!fixture.admitted("c1", "a2", 2));

    let second = fixture.token(trusted).await;
    assert_eq!(fixture.join(&second, "", "a3", 3).await.unwrap(), accepted);
    assert!(fixture.admitted("c1", "a3", 3));
    assert!(!fixture.admitted("c1", "a2", 2), "a token lets in its own agent and no other that waits");
}

#[tokio::test]
async fn of_two_agents_with_one_single_use_token_one_joins() {
    let fixture = Fixture::new();
    for round in 0..20 {
        let token = fixture.token(plain()).await;
        let (first, second) = (format!("a{round}"), format!("b{round}"));
        let outcomes = tokio::join!(fixture.join(&token, &first, "a1", 1), fixture.join(&token, &second, "a1", 2));
        let (joined, refused) = match outcomes {
            (Ok(_), Err(refusal)) => ((first, second), refusal),
            (Err(refusal), Ok(_)) => ((second, first), refusal),
            both => panic!("{both:?}"),
        };
        assert_eq!(refused.reason(), "UsedToken");
        assert!(fixture.standing(&joined.0).is_some() && fixture.standing(&joined.1).is_none());
    }
}

#[tokio::test]
async fn many_agents_join_at_once_with_one_reusable_token() {
    let fixture = Fixture::new();
    let token = fixture.token(NewToken { reusable: true, auto_accept: true, ..plain() }).await;
    let mut tasks = JoinSet::new();
    for n in 0..60_u8 {
        // 30 clusters of one agent each, and one cluster of 30.
        let cluster = if n < 30 { format!("c{n}") } else { "big".to_owned() };
        let (registry, ask) = (Arc::clone(&fixture.registry), ask(&token, &cluster, &format!("a{n}"), n));
        tasks.spawn(async move { registry.request_join(ask, at(1)).await });
    }
    for outcome in tasks.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(fixture.registry.clusters().len(), 31);
    assert_eq!(fixture.registry.cluster(&name("big")).unwrap().status.agents.len(), 30);
    assert!((0..30).all(|n| fixture.admitted(&format!("c{n}"), &format!("a{n}"), n)));
    assert!(fixture.registry.tokens()[0].used_by.is_empty());
}

#[tokio::test]
async fn a_token_is_listed_without_its_secret_until_it_is_deleted() {
    let fixture = Fixture::new();
    let (token, text) = fixture.registry.create_token(plain(), at(0)).await.unwrap();
    assert!(text.expose_secret().starts_with(&format!("cpj-{}.", token.id)));
    assert_eq!(token.expires_at, at(3600));
    let (entries, _) = fixture.registry.store().list("/jointokens/");
    let stored = str::from_utf8(&entries[0].1.value).unwrap();
    assert!(!stored.contains(text.expose_secret().split_once('.').unwrap().1));

    let fixture = fixture.reopened().await;
    assert_eq!(*fixture.registry.tokens()[0], token);
    fixture.registry.delete_token(&token.id).await.unwrap();
    assert!(fixture.registry.tokens().is_empty());
    assert_eq!(fixture.refusal(ask(&text, "c1", "a1", 1), at(1)).await, "UnknownToken");
    assert!(matches!(fixture.registry.delete_token(&token.id).await, Err(TokenError::Unknown { .. })));
}

#[tokio::test]
async fn a_token_must_live_and_must_not_live_for_ever() {
    let fixture = Fixture::new();
    for time_to_live in
        [Duration::ZERO, Duration::from_millis(999), MAX_TIME_TO_LIVE + Duration::from_secs(1), Duration::MAX]
    {
        let refused = fixture.registry.create_token(NewToken { time_to_live, ..plain() }, at(0)).await;
        assert!(matches!(refused, Err(NewTokenError::TimeToLive)));
    }
    fixture.token(NewToken { time_to_live: MAX_TIME_TO_LIVE, ..plain() }).await;
}

#[tokio::test]
async fn a_user_is_known_by_its_token_until_it_is_deleted() {
    let fixture = Fixture::new();
    let reach = ClusterScope::Named([name("c1")].into());
    let (user, token) = fixture.registry.create_user(alice(reach.clone()), at(0)).await.unwrap();
    let again = fixture.registry.create_user(alice(reach), at(1)).await;
    assert!(matches!(again, Err(NewUserError::Exists { .. })));

    let fixture = fixture.reopened().await;
    let registry = &fixture.registry;
    let text = token.expose_secret();
    assert_eq!(*registry.authenticate(text, at(1)).unwrap(), user);
    let last = if text.ends_with('A') { "E" } else { "A" };
    for wrong in
        ["", "cpu-", "alice", &text[1..], &format!("{}{last}", &text[..text.len() - 1]), &text.replace("cpu", "cpj")]
    {
        assert_eq!(registry.authenticate(wrong, at(1)).unwrap_err(), TokenRefusal::Unknown);
    }

    let reaches = |cluster: &str| {
        let caller = user.caller();
        registry.with_policy(|policy| policy.may_proxy(&caller.user, &caller.groups, cluster)).is_ok()
    };
    registry.bootstrap(at(2)).await.unwrap();
    assert!(reaches("c1") && !reaches("c2"));
    assert_eq!(registry.role_of(&user.name), (Role::User, ClusterScope::Named([name("c1")].into())));
    registry.set_reach(&user.name, &ClusterScope::All, at(3)).await.unwrap();
    assert!(reaches("c1") && reaches("c2"));
    assert_eq!(registry.role_of(&user.name), (Role::User, ClusterScope::All));
    registry.set_reach(&user.name, &ClusterScope::Named([].into()), at(4)).await.unwrap();
    assert!(!reaches("c1"));
    assert_eq!(*registry.authenticate(text, at(1)).unwrap(), user);

    registry.delete_user(&user.name).await.unwrap();
    assert!(registry.authenticate(text, at(1)).is_err() && registry.user(&user.name).is_none());
    assert!(matches!(registry.delete_user(&user.name).await, Err(UserError::Unknown { .. })));
    assert!(matches!(registry.set_reach(&user.name, &ClusterScope::All, at(5)).await, Err(UserError::Unknown { .. })));
}

#[tokio::test]
async fn changing_a_cluster_nobody_registered_is_an_error() {
    let fixture = Fixture::new();
    let cluster = name("c1");
    assert!(matches!(fixture.registry.accept(&cluster, &[], at(0)).await, Err(ClusterError::Unknown { .. })));
    assert!(matches!(fixture.registry.deny(&cluster, at(0)).await, Err(ClusterError::Unknown { .. })));
    assert!(matches!(fixture.registry.delete_cluster(&cluster).await, Err(ClusterError::Unknown { .. })));
    assert_eq!(fixture.registry.store().revision(), Revision::ZERO);
}

#[tokio::test]
async fn every_change_is_announced_once_it_can_be_seen() {
    let fixture = Fixture::new();
    let mut changes = fixture.registry.changes();
    let (token, text) = fixture.registry.create_token(plain(), at(0)).await.unwrap();
    assert_eq!(changes.recv().await.unwrap(), Change::Token(token.id.clone()));
    fixture.join(&text, "c1", "a1", 1).await.unwrap();
    let both = [changes.recv().await.unwrap(), changes.recv().await.unwrap()];
    assert_eq!(both, [Change::Token(token.id), Change::Cluster(name("c1"))]);
    fixture.registry.deny(&name("c1"), at(1)).await.unwrap();
    fixture.registry.delete_cluster(&name("c1")).await.unwrap();
    assert_eq!(changes.recv().await.unwrap(), Change::Cluster(name("c1")));
    assert_eq!(changes.recv().await.unwrap(), Change::Cluster(name("c1")));
    fixture.registry.create_user(alice(ClusterScope::All), at(0)).await.unwrap();
    let both = [changes.recv().await.unwrap(), changes.recv().await.unwrap()];
    assert!(matches!(&both[0], Change::Rights(binding) if binding.to_string().ends_with("cluster-proxy:user:alice")));
    assert_eq!(both[1], Change::User(name("alice")));
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn keys_of_other_kinds_are_left_alone() {
    let fixture = Fixture::new();
    let txn = Txn::new().put("/leases/c1/x", b"{}".to_vec());
    fixture.registry.store().commit(txn).await.unwrap();
    let fixture = fixture.reopened().await;
    assert!(fixture.registry.clusters().is_empty());
    assert!(fixture.registry.store().get("/leases/c1/x").is_some());
}

#[tokio::test]
async fn a_resource_that_cannot_be_read_gives_no_rights_and_is_damage_at_the_next_start() {
    let fixture = Fixture::new();
    let (_, token) = fixture.registry.create_user(alice(ClusterScope::All), at(0)).await.unwrap();
    fixture.registry.store().commit(Txn::new().put("/users/alice", b"{\"name\":".to_vec())).await.unwrap();
    assert!(fixture.registry.authenticate(token.expose_secret(), at(1)).is_err());
    assert!(fixture.registry.user(&name("alice")).is_none());

    fixture.registry.close().await;
    let Fixture { folder, registry } = fixture;
    drop(registry);
    let error = Registry::open(folder.path().join("registry.redb")).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert!(error.source().unwrap().to_string().contains("/users/alice"));
}

#[test]
fn a_uid_is_a_random_uuid() {
    let (one, other) = (random_uuid(), random_uuid());
    assert_ne!(one, other);
    let groups: Vec<usize> = one.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12]);
    assert_eq!(one.as_bytes()[14], b'4');
    assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
}
