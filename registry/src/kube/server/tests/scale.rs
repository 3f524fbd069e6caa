//! Ten thousand clusters: pages, a hundred watchers, and one that does not read.

use super::*;
use store::Txn;

const CLUSTER_COUNT: usize = 10_000;
const GROUP: &str = "cluster.open-cluster-management.io";

/// A hub with many clusters, every hundredth of them in the team `a`.
async fn large() -> Hub {
    let hub = Hub::new().await;
    let made = hub.admin().post(CLUSTERS, cluster("c", json!({}))).await.ok();
    for hundred in 0..CLUSTER_COUNT / 100 {
        let mut txn = Txn::new();
        for n in 0..100 {
            let mut cluster = made.clone();
            cluster["metadata"]["name"] = format!("c{:05}", hundred * 100 + n).into();
            cluster["metadata"]["labels"]["team"] = if n == 0 { "a".into() } else { "b".into() };
            txn = txn.put(format!("/managedclusters/{}", object::name(&cluster)), object::write(&cluster));
        }
        hub.registry.store().commit(txn).await.unwrap();
    }
    hub.admin().delete(&format!("{CLUSTERS}/c")).await.ok();
    hub.admin().post(SETS, set("a", json!({"team": "a"}))).await.ok();
    hub.grant("u", "", json!([rule(GROUP, &["managedclustersets"], &["list", "watch"], &["a"])])).await;
    hub
}

/// All pages of a list together.
async fn paged(client: &Client<'_>, limit: usize) -> Vec<Value> {
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let mut page = client.get(&format!("{CLUSTERS}?limit={limit}{next}")).await.ok();
        items.append(page["items"].as_array_mut().unwrap());
        match page["metadata"]["continue"].as_str() {
            Some(token) => next = format!("&continue={token}"),
            None => return items,
        }
    }
}

#[tokio::test]
async fn pages_together_are_the_list() {
    let hub = large().await;
    for (client, count) in [(hub.admin(), CLUSTER_COUNT), (hub.user("u"), CLUSTER_COUNT / 100)] {
        let all = client.get(CLUSTERS).await.ok()["items"].take();
        assert_eq!(all.as_array().unwrap().len(), count);
        // Compared as texts: a difference would print ten thousand objects.
        assert!(Value::from(paged(&client, 500).await) == all, "{}", client.caller.user);
        assert!(Value::from(paged(&client, 333).await).as_array().unwrap().len() == count);
    }
}

#[tokio::test]
async fn a_hundred_watchers_see_one_change_and_each_only_what_is_theirs() {
    let hub = large().await;
    let from = format!("{CLUSTERS}?resourceVersion={}", hub.registry.store().revision());
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push((hub.admin().opened(&from).await, "MODIFIED"));
        watches.push((hub.user("u").opened(&from).await, "ADDED"));
    }
    let team = |team: &str| json!({"metadata": {"labels": {"team": team}}});
    let moved = hub.admin().patch(&format!("{CLUSTERS}/c00001"), team("a")).await.ok();
    for (watch, kind) in &mut watches {
        assert_eq!(watch.next().await, ((*kind).to_owned(), moved.clone()));
    }
    hub.admin().patch(&format!("{CLUSTERS}/c00001"), team("b")).await.ok();
    for (watch, kind) in &mut watches {
        let expected = if *kind == "ADDED" { "DELETED" } else { "MODIFIED" };
        assert_eq!(watch.said().await, [format!("{expected} c00001")]);
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_left_behind_and_holds_nothing() {
    let hub = large().await;
    let mut watch =
        hub.admin().opened(&format!("{CLUSTERS}?resourceVersion={}", hub.registry.store().revision())).await;
    // More than the log remembers, in bytes: what it forgets is kept nowhere else.
    for n in 0..80_u8 {
        let txn = Txn::new().put("/elsewhere", vec![n; 1 << 20]);
        hub.registry.store().commit(txn).await.unwrap();
    }
    let (kind, status) = watch.next().await;
    assert_eq!((kind.as_str(), &status["reason"]), ("ERROR", &json!("Expired")));
}

#[tokio::test]
async fn a_watch_that_begins_with_what_there_is_tells_all_of_it() {
    let hub = large().await;
    let initial =
        format!("{CLUSTERS}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    for (client, count) in [(hub.admin(), CLUSTER_COUNT), (hub.user("u"), CLUSTER_COUNT / 100)] {
        let mut watch = client.opened(&initial).await;
        // What happens meanwhile comes after the mark.
        hub.admin()
            .patch(&format!("{CLUSTERS}/c00000"), json!({"metadata": {"labels": {"x": client.caller.user}}}))
            .await
            .ok();
        for n in 0..count {
            let (kind, object) = watch.next().await;
            assert_eq!(
                (kind.as_str(), object::name(&object)),
                ("ADDED", &*format!("c{:05}", n * CLUSTER_COUNT / count))
            );
        }
        assert_eq!(watch.next().await.0, "BOOKMARK");
        assert_eq!(watch.said().await, ["MODIFIED c00000"]);
    }
}
