//! Tests of who is let in, sent away and kept waiting.

use super::*;

#[tokio::test]
async fn who_accepts_lets_in_what_was_shown_and_nobody_who_came_since() {
    let fixture = Fixture::new();
    let c1 = name("c1");
    let token = fixture.token(NewToken { reusable: true, ..plain() }).await;
    fixture.join(&token, "c1", "a1", 1).await.unwrap();
    let shown = fixture.waiting("c1");
    fixture.join(&token, "c1", "a2", 2).await.unwrap();
    fixture.registry.accept(&c1, &shown, at(20)).await.unwrap();
    assert!(fixture.admitted("c1", "a1", 1) && !fixture.admitted("c1", "a2", 2));

    // Another key under the name that was shown is somebody else.
    let other = ShownAgent { name: name("a2"), key: key(3) };
    let refused = fixture.registry.accept(&c1, &[other], at(21)).await;
    assert!(matches!(refused, Err(ClusterError::OtherAgent { .. })), "{refused:?}");
    // One who was sent away is not let in by an old look.
    let shown = fixture.waiting("c1");
    fixture.registry.decide_agents(&c1, &shown, AgentPhase::Denied, at(21)).await.unwrap();
    let refused = fixture.registry.accept(&c1, &shown, at(22)).await;
    assert!(matches!(refused, Err(ClusterError::OtherAgent { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_agent_that_was_sent_away_or_removed_is_out_and_its_name_is_free() {
    let fixture = Fixture::new();
    let c1 = name("c1");
    let bound = NewToken { cluster: Some(name("c1")), auto_accept: true, ..plain() };
    let join = async |n| fixture.join(&fixture.token(bound.clone()).await, "c1", "a1", n).await;
    join(1).await.unwrap();
    let first = fixture.registry.cluster(&c1).unwrap().status.agents[0].shown();
    fixture.registry.decide_agents(&c1, std::slice::from_ref(&first), AgentPhase::Denied, at(21)).await.unwrap();
    assert!(!fixture.admitted("c1", "a1", 1));
    assert_eq!(join(1).await.unwrap_err().reason(), "AgentDenied");
    join(2).await.unwrap();
    assert!(fixture.admitted("c1", "a1", 2) && !fixture.admitted("c1", "a1", 1));
    // A late word about the first one does not concern the second.
    let late = fixture.registry.remove_agent(&c1, &first, at(21)).await;
    assert!(matches!(late, Err(ClusterError::OtherAgent { .. })), "{late:?}");
    let second = ShownAgent { key: key(2), ..first };
    fixture.registry.remove_agent(&c1, &second, at(21)).await.unwrap();
    assert!(!fixture.admitted("c1", "a1", 2));
    assert!(fixture.registry.cluster(&c1).unwrap().status.agents.is_empty());
    let gone = fixture.registry.remove_agent(&c1, &second, at(21)).await;
    assert!(matches!(gone, Err(ClusterError::UnknownAgent { .. })), "{gone:?}");
}

#[tokio::test]
async fn an_agent_that_has_lost_its_key_comes_back_by_a_token_of_its_cluster_and_the_old_key_is_out() {
    let fixture = Fixture::new();
    let bound = NewToken { cluster: Some(name("c1")), auto_accept: true, ..plain() };
    fixture.join(&fixture.token(bound.clone()).await, "c1", "a1", 1).await.unwrap();
    // Not by a token that vouches for nobody, nor by one that is for any cluster.
    for terms in [NewToken { auto_accept: false, ..bound.clone() }, NewToken { cluster: None, ..bound.clone() }] {
        let token = fixture.token(terms).await;
        assert_eq!(fixture.refusal(ask(&token, "c1", "a1", 2), at(1)).await, "AgentNameTaken");
    }
    fixture.join(&fixture.token(bound).await, "c1", "a1", 2).await.unwrap();
    assert!(fixture.admitted("c1", "a1", 2) && !fixture.admitted("c1", "a1", 1));
    assert_eq!(fixture.registry.cluster(&name("c1")).unwrap().status.agents.len(), 1);
}

#[tokio::test]
async fn a_lost_token_fills_nothing() {
    let fixture = Fixture::new();
    let lost = fixture.token(NewToken { reusable: true, ..plain() }).await;
    let from = |token: &SecretString, cluster: &str, agent: &str, n: u8| JoinAsk {
        address: Some([203, 0, 113, 1].into()),
        ..ask(token, cluster, agent, n)
    };
    // In one cluster.
    let mut joined = 0;
    for n in 0..100 {
        match fixture.registry.request_join(ask(&lost, "one", &format!("a{n}"), n), at(1)).await {
            Ok(_) => joined += 1,
            Err(refusal) => assert_eq!(refusal.reason(), "TooManyWaiting"),
        }
    }
    assert_eq!(joined, crate::cluster::MAX_WAITING);
    // In many.
    for n in 0..100 {
        let asked = fixture.registry.request_join(ask(&lost, &format!("c{n}"), "a", n), at(1)).await;
        joined += usize::from(asked.is_ok());
    }
    assert_eq!((joined, fixture.registry.clusters().len()), (64, 33));
    // By many tokens, from one address.
    let mut joined = 0;
    for n in 0..100 {
        let token = fixture.token(plain()).await;
        joined +=
            usize::from(fixture.registry.request_join(from(&token, &format!("d{n}"), "a", n), at(1)).await.is_ok());
    }
    assert_eq!(joined, 64);
    // Nobody else is kept out, and a decision makes room.
    let other = fixture.token(plain()).await;
    fixture.join(&other, "other", "a", 1).await.unwrap();
    let vouched = fixture.token(NewToken { cluster: Some(name("one")), auto_accept: true, ..plain() }).await;
    fixture.join(&vouched, "one", "own", 200).await.unwrap();
    fixture.registry.decide_agents(&name("one"), &fixture.waiting("one"), AgentPhase::Denied, at(21)).await.unwrap();
    fixture.join(&lost, "one", "b", 201).await.unwrap();
}
