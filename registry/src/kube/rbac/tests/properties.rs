//! The policy against the oracle, on random worlds: nothing leaks, and nothing is denied that somebody holds.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::*;
use super::oracle::{Oracle, spelled};
use super::world::{
    GROUPS, MEMBERS, NAMES, NAMESPACES, RESOURCES, SET_NAMES, SUBRESOURCES, VERBS, World, history, rules, somebody,
    tell, world,
};

const READS: [ReadVerb; 3] = [ReadVerb::Get, ReadVerb::List, ReadVerb::Watch];

/// A request for a resource, of a user and groups to be filled in.
fn request() -> impl Strategy<Value = Attributes> {
    let namespace = prop_oneof![Just(""), select(&NAMESPACES)];
    let name = prop_oneof![1 => Just(""), 4 => select(&NAMES)];
    (select(&VERBS), select(&GROUPS), select(&RESOURCES), select(&SUBRESOURCES), namespace, name).prop_map(
        |(verb, group, resource, subresource, namespace, name)| Attributes {
            subresource: subresource.to_owned(),
            ..super::request("", verb, group, resource, namespace, name)
        },
    )
}

fn full(request: &Attributes) -> String {
    let Attributes { resource, subresource, .. } = request;
    if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn requests_are_decided_as_the_oracle_does(
        world in world(),
        (user, groups) in somebody(),
        requests in prop::collection::vec(request(), 16),
    ) {
        let (policy, oracle) = (world.policy(), Oracle::new(&world));
        let asker = oracle.ask(&user, &groups);
        for request in requests {
            let request = Attributes { user: user.clone(), groups: groups.clone(), ..request };
            let Attributes { verb, api_group, resource, subresource, namespace, name, .. } = &request;
            let plain = asker.may(verb, api_group, &full(&request), namespace, name);
            prop_assert_eq!(policy.authorize(&request).is_allowed(), plain, "{:?}", &request);
            let one = api_group == CLUSTER_GROUP && subresource.is_empty() && !name.is_empty();
            let read = ["get", "list", "watch"].contains(&verb.as_str());
            let more = match resource.as_str() {
                CLUSTERS if one && read => asker.sees_cluster(verb, name),
                SETS if one && read => asker.sees_set(verb, name),
                CLUSTERS if one && verb == PROXY => asker.reaches(name),
                _ => false,
            };
            prop_assert_eq!(policy.decide(&request).is_allowed(), plain || more, "{:?}", request);
        }
    }

    #[test]
    fn clusters_are_reached_as_the_oracle_says_and_the_grant_is_true(world in world(), (user, groups) in somebody()) {
        let (policy, oracle) = (world.policy(), Oracle::new(&world));
        let asker = oracle.ask(&user, &groups);
        for cluster in MEMBERS.into_iter().chain(["fresh"]) {
            let grant = policy.may_proxy(&user, &groups, cluster);
            prop_assert_eq!(grant.is_ok(), asker.reaches(cluster), "{}", cluster);
            if let Ok(grant) = grant {
                check_grant(&world, &user, &groups, cluster, &grant)?;
            }
        }
    }

    #[test]
    fn what_is_visible_is_what_the_oracle_sees(world in world(), (user, groups) in somebody(), verb in select(&READS)) {
        let (policy, oracle) = (world.policy(), Oracle::new(&world));
        let asker = oracle.ask(&user, &groups);
        let check = |api_group, resource, scope, namespace, name, expected: bool| {
            let asked = VisibilityQuery { verb, api_group, resource, scope };
            let shown = policy.visible(&user, &groups, &asked).contains(namespace, name);
            prop_assert_eq!(shown, expected, "{:?} {} {}", asked, namespace, name);
            if scope != Scope::AllNamespaces {
                prop_assert_eq!(policy.may_see(&user, &groups, &asked, name).is_some(), expected, "{:?} {}", asked, name);
            }
            Ok(())
        };
        let word = verb.as_str();
        for name in MEMBERS.into_iter().chain(["fresh"]) {
            check(CLUSTER_GROUP, CLUSTERS, Scope::Cluster, "", name, asker.sees_cluster(word, name))?;
        }
        for name in SET_NAMES.into_iter().chain(["fresh"]) {
            check(CLUSTER_GROUP, SETS, Scope::Cluster, "", name, asker.sees_set(word, name))?;
        }
        for name in NAMESPACES.into_iter().chain(["fresh"]) {
            check("", "namespaces", Scope::Cluster, "", name, asker.sees_namespace(word, name))?;
        }
        for (own, name) in NAMESPACES.into_iter().flat_map(|own| NAMES.map(|name| (own, name))) {
            let expected = asker.may(word, "", "secrets", own, name);
            check("", "secrets", Scope::Namespace(own), "", name, expected)?;
            check("", "secrets", Scope::AllNamespaces, own, name, expected)?;
        }
    }

    #[test]
    fn only_what_is_held_can_be_given_away(
        world in world(),
        (user, groups) in somebody(),
        namespace in prop_oneof![Just(""), select(&NAMESPACES)],
        rules in rules(),
    ) {
        let (policy, oracle) = (world.policy(), Oracle::new(&world));
        let asker = oracle.ask(&user, &groups);
        let parsed = super::parsed(&rules);
        let missing = policy.covers(&user, &groups, namespace, &parsed).err().unwrap_or_default();
        let left: Vec<_> =
            missing.iter().flat_map(|rule| spelled(&serde_json::to_value(rule).unwrap())).map(|(_, what)| what).collect();
        for (_, what) in rules.iter().flat_map(spelled) {
            let (verb, group, resource, name) = &what;
            let held = asker.may(verb, group, resource, namespace, name);
            prop_assert!(held || left.contains(&what), "{:?} is covered and not held", what);
        }
    }

    #[test]
    fn a_policy_told_of_every_change_is_the_one_told_of_the_outcome(history in history()) {
        let mut policy = Policy::default();
        for change in &history {
            tell(&mut policy, change);
        }
        prop_assert_eq!(policy, World::after(&history).policy());
    }
}

/// The binding named is alone enough, the subject is the user, and the path leads to the cluster.
fn check_grant(
    world: &World,
    user: &str,
    groups: &[String],
    cluster: &str,
    grant: &Grant,
) -> Result<(), TestCaseError> {
    let Source::Binding { binding, subject } = &grant.source else {
        prop_assert!(groups.iter().any(|group| group == MASTERS));
        return Ok(());
    };
    prop_assert!(binding.subjects.contains(subject));
    let (namespace, name) = (&*binding.metadata.namespace, &*binding.metadata.name);
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let alone = world.with_only(kind, namespace, name).policy().may_proxy(user, groups, cluster);
    prop_assert_eq!(alone.as_ref(), Ok(grant));
    let holds = |set: &str| world.members.iter().any(|member| *member == (cluster, set));
    match &grant.path {
        Path::Direct => prop_assert!(namespace.is_empty()),
        Path::Set { set } => prop_assert!(holds(set) && namespace.is_empty()),
        Path::Workspace { namespace: own, set } => {
            prop_assert!(holds(set) && **own == *namespace);
            let key = ("ManagedClusterSetBinding".to_owned(), namespace.to_owned(), set.to_string());
            prop_assert_eq!(&world.objects[&key]["status"]["conditions"][0]["status"], "True");
        }
    }
    Ok(())
}
