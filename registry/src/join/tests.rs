//! The join rule against a table of what it must say, for every state of token, cluster and agent.

use proptest::prelude::*;

use super::*;
use crate::secret::{DrawnToken, TokenKind};

const NOW: i64 = 1_000_000;

/// Who used the token before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Used {
    Never,
    ByThisAgent,
    ByAnother,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cluster {
    Absent,
    Pending,
    Accepted,
    Denied,
}

/// What the cluster knows of an agent of the asker's name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Agent {
    Unknown,
    PendingSameKey,
    AcceptedSameKey,
    OtherKey,
    DeniedSameKey,
    DeniedOtherKey,
}

/// Everything the rule may depend on. The cluster is c1, the asking agent a1 with key 1.
#[derive(Clone, Copy, Debug)]
struct Situation {
    expired: bool,
    used: Used,
    /// The token's cluster: c1, c2 or none.
    bound: Option<&'static str>,
    /// The cluster asked for: c1 or none.
    asked: Option<&'static str>,
    auto_accept: bool,
    reusable: bool,
    cluster: Cluster,
    agent: Agent,
}

fn situation() -> impl Strategy<Value = Situation> {
    let used = prop_oneof![Just(Used::Never), Just(Used::ByThisAgent), Just(Used::ByAnother)];
    let bound = prop_oneof![Just(None), Just(Some("c1")), Just(Some("c2"))];
    let asked = prop_oneof![Just(None), Just(Some("c1"))];
    let cluster =
        prop_oneof![Just(Cluster::Absent), Just(Cluster::Pending), Just(Cluster::Accepted), Just(Cluster::Denied)];
    let agent = prop_oneof![
        Just(Agent::Unknown),
        Just(Agent::PendingSameKey),
        Just(Agent::AcceptedSameKey),
        Just(Agent::OtherKey),
        Just(Agent::DeniedSameKey),
        Just(Agent::DeniedOtherKey),
    ];
    (any::<bool>(), used, bound, asked, any::<bool>(), any::<bool>(), cluster, agent).prop_map(
        |(expired, used, bound, asked, auto_accept, reusable, cluster, agent)| Situation {
            expired,
            // Uses of a reusable token are not recorded.
            used: if reusable { Used::Never } else { used },
            bound: if used == Used::ByThisAgent && bound == Some("c2") { None } else { bound },
            asked,
            auto_accept,
            reusable,
            cluster,
            agent: if cluster == Cluster::Absent { Agent::Unknown } else { agent },
        },
    )
}

/// The model: the reason of the refusal, or "Accepted" or "Pending".
fn expected(s: Situation) -> &'static str {
    let known = matches!(s.agent, Agent::PendingSameKey | Agent::AcceptedSameKey | Agent::DeniedSameKey);
    let comes_back = s.used == Used::ByThisAgent && known;
    // 1. The token. An agent that used it may come back, others are told why not.
    if s.used != Used::Never && !comes_back {
        return "UsedToken";
    }
    if s.expired && !comes_back {
        return "ExpiredToken";
    }
    // 2. The name.
    match (s.bound, s.asked) {
        (Some("c2"), Some(_)) => return "WrongName",
        (None, None) if !comes_back => return "NoName",
        _ => {}
    }
    // 3. The cluster and the agent.
    if s.cluster == Cluster::Denied {
        return "ClusterDenied";
    }
    let vouched_for = !comes_back && s.auto_accept && (s.cluster == Cluster::Absent || s.bound.is_some());
    // The cluster's own token puts a new key in the place of the old one.
    if s.agent == Agent::OtherKey && !vouched_for {
        return "AgentNameTaken";
    }
    if s.agent == Agent::DeniedSameKey {
        return "AgentDenied";
    }
    // 4. Let in: before, or now by the token.
    let was_in = s.cluster == Cluster::Accepted && s.agent == Agent::AcceptedSameKey;
    if vouched_for || was_in { "Accepted" } else { "Pending" }
}

fn name<T: std::str::FromStr<Err: fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn key(n: u8) -> KeyFingerprint {
    name(&format!("sha256:{n:064x}"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn token(s: Situation) -> JoinToken {
    let user = |agent: &str, n| TokenUse { cluster: name("c1"), agent: name(agent), key: key(n), at: at(1) };
    JoinToken {
        id: "0123456789".to_owned(),
        hash: DrawnToken::draw(TokenKind::Join).hash,
        expires_at: at(if s.expired { NOW } else { NOW + 1 }),
        cluster: s.bound.map(name),
        auto_accept: s.auto_accept,
        reusable: s.reusable,
        created_by: "admin".to_owned(),
        created_at: at(0),
        used_by: match s.used {
            Used::Never => Vec::new(),
            Used::ByThisAgent => vec![user("a1", 1)],
            Used::ByAnother => vec![user("a1", 2)],
        },
    }
}

fn agent(agent: &str, n: u8, phase: AgentPhase) -> ClusterAgent {
    let (name, key) = (name(agent), key(n));
    ClusterAgent {
        name,
        key,
        phase,
        requested_at: at(1),
        address: None,
        token: String::new(),
        last_seen: None,
        version: String::new(),
        request: String::new(),
        ca: None,
    }
}

/// The cluster, in which another agent waits too.
fn cluster(s: Situation) -> Option<ManagedCluster> {
    let mut cluster = ManagedCluster::new(name("c1"), "u-1".to_owned(), at(1));
    match s.cluster {
        Cluster::Absent => return None,
        Cluster::Pending => {}
        Cluster::Accepted => cluster.accept(),
        Cluster::Denied => cluster.deny(at(2)),
    }
    cluster.status.agents.push(agent("waiting", 9, AgentPhase::Pending));
    match s.agent {
        Agent::Unknown => {}
        Agent::PendingSameKey => cluster.status.agents.push(agent("a1", 1, AgentPhase::Pending)),
        Agent::AcceptedSameKey => cluster.status.agents.push(agent("a1", 1, AgentPhase::Accepted)),
        Agent::OtherKey => cluster.status.agents.push(agent("a1", 3, AgentPhase::Accepted)),
        Agent::DeniedSameKey => cluster.status.agents.push(agent("a1", 1, AgentPhase::Denied)),
        Agent::DeniedOtherKey => cluster.status.agents.push(agent("a1", 3, AgentPhase::Denied)),
    }
    Some(cluster)
}

fn ask(s: Situation) -> JoinAsk {
    JoinAsk {
        token: SecretString::from(""),
        cluster: s.asked.map(name),
        agent: name("a1"),
        key: key(1),
        version: "1.0".to_owned(),
        request: b"asked".to_vec(),
        address: Some([192, 0, 2, 1].into()),
    }
}

/// What the registry does: find the name, then decide. `c2` is never registered.
fn decided(s: Situation) -> Result<Decision, JoinRefusal> {
    let (token, ask, now) = (token(s), ask(s), at(NOW));
    let asked = cluster_name(&token, &ask, now)?;
    let cluster = cluster(s).filter(|cluster| *cluster.name() == asked);
    decide(&token, asked, cluster.as_ref(), &ask, || "u-2".to_owned(), now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_answer_is_that_of_the_table(s in situation()) {
        // With c2's token and no name asked for, c2 is what is joined: as if c1 were not there.
        let s = match (s.bound, s.asked) {
            (Some("c2"), None) => Situation { cluster: Cluster::Absent, agent: Agent::Unknown, ..s },
            _ => s,
        };
        let answer = match decided(s) {
            Ok(Decision { joined: Joined::Accepted { .. }, .. }) => "Accepted",
            Ok(Decision { joined: Joined::Pending { .. }, .. }) => "Pending",
            Err(refusal) => refusal.reason(),
        };
        prop_assert_eq!(answer, expected(s));
    }

    #[test]
    fn a_join_lists_the_agent_once_and_lets_nobody_else_in(s in situation()) {
        let Ok(decision) = decided(s) else { return Ok(()) };
        let Some(new) = &decision.cluster else { return Ok(()) };
        prop_assert_eq!(new.status.agents.iter().filter(|agent| *agent.name == *"a1").count(), 1);
        prop_assert_eq!(new.agent(&name("a1")).unwrap().key, key(1));
        if let Some(waiting) = new.agent(&name("waiting")) {
            prop_assert_eq!(waiting.phase, AgentPhase::Pending);
        }
    }

    #[test]
    fn without_a_token_that_accepts_no_join_accepts_anything(s in situation()) {
        let s = Situation { auto_accept: false, ..s };
        let Ok(Decision { cluster: Some(new), .. }) = decided(s) else { return Ok(()) };
        let old = cluster(s).filter(|old| old.name() == new.name());
        prop_assert_eq!(new.acceptance(), old.as_ref().map_or(AcceptanceStatus::Pending, ManagedCluster::acceptance));
        let phase = |cluster: &ManagedCluster| cluster.agent(&name("a1")).map(|agent| agent.phase);
        // The name of one that was denied is free.
        let before = old.as_ref().and_then(phase).filter(|phase| *phase != AgentPhase::Denied);
        prop_assert_eq!(phase(&new), before.or(Some(AgentPhase::Pending)));
    }

    #[test]
    fn an_unbound_token_lets_no_agent_into_an_existing_cluster(s in situation()) {
        let s = Situation { bound: None, agent: Agent::Unknown, ..s };
        if s.cluster == Cluster::Absent {
            return Ok(());
        }
        if let Ok(decision) = decided(s) {
            prop_assert_eq!(decision.joined, Joined::Pending { cluster: name("c1") });
        }
    }

    #[test]
    fn a_single_use_token_is_spent_and_then_works_for_the_same_agent_alone(s in situation()) {
        let s = Situation { reusable: false, used: Used::Never, ..s };
        let Ok(Decision { cluster: Some(cluster), token: Some(spent), joined, .. }) = decided(s) else { return Ok(()) };
        let later = at(NOW + 1_000_000);
        let again = |ask: &JoinAsk| {
            let name = cluster_name(&spent, ask, later)?;
            decide(&spent, name, Some(&cluster), ask, || "u-3".to_owned(), later)
        };
        let back = again(&ask(s)).unwrap();
        prop_assert_eq!(back.joined, joined);
        prop_assert!(back.cluster.is_none() && back.token.is_none());
        for other in [JoinAsk { key: key(7), ..ask(s) }, JoinAsk { agent: name("a7"), ..ask(s) }] {
            prop_assert_eq!(again(&other).unwrap_err().reason(), "UsedToken");
        }
        // Once the cluster is deleted, it is a used token like any other.
        let gone = decide(&spent, cluster.name().clone(), None, &ask(s), || "u-3".to_owned(), later);
        prop_assert_eq!(gone.unwrap_err().reason(), "UsedToken");
    }
}

#[test]
fn a_cluster_takes_so_many_agents_and_no_more() {
    let s = Situation {
        expired: false,
        used: Used::Never,
        bound: Some("c1"),
        asked: None,
        auto_accept: true,
        reusable: true,
        cluster: Cluster::Accepted,
        agent: Agent::Unknown,
    };
    let mut full = cluster(s).unwrap();
    full.status.agents[0].phase = AgentPhase::Accepted;
    let more = MAX_AGENTS - full.status.agents.len();
    full.status.agents.extend((0..more).map(|n| agent(&format!("b{n}"), 5, AgentPhase::Accepted)));
    let decided = decide(&token(s), name("c1"), Some(&full), &ask(s), String::new, at(NOW));
    assert_eq!(decided.unwrap_err().reason(), "TooManyAgents");
    // Those that were denied make room.
    full.status.agents[3].phase = AgentPhase::Denied;
    let decided = decide(&token(s), name("c1"), Some(&full), &ask(s), String::new, at(NOW)).unwrap();
    assert_eq!(decided.cluster.unwrap().status.agents.len(), MAX_AGENTS);
    // So does one that waits, for one who is vouched for; who is not stands behind it.
    full.status.agents[3].phase = AgentPhase::Pending;
    let decided = decide(&token(s), name("c1"), Some(&full), &ask(s), String::new, at(NOW)).unwrap();
    let after = decided.cluster.unwrap();
    assert_eq!((after.status.agents.len(), after.waiting().count()), (MAX_AGENTS, 0));
    let waits = token(Situation { auto_accept: false, ..s });
    let refused = decide(&waits, name("c1"), Some(&full), &ask(s), String::new, at(NOW)).unwrap_err();
    assert_eq!(refused.reason(), "TooManyAgents");
}
