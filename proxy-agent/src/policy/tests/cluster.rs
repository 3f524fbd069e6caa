//! What is open of an agent's own cluster, and what a denied name closes, by whatever name it is called.

use proptest::prelude::*;

use super::*;

const SEARCH: &str =
    "nameserver 10.96.0.10\nsearch agents.svc.Example.Org. svc.example.org example.org corp.test\noptions ndots:5\n";

fn cluster() -> Cluster {
    Cluster::new("10.96.0.1:443".parse().unwrap(), SEARCH)
}

fn within(allow: &[&str], deny: &[&str]) -> Policy {
    policy(allow, deny).within(Some(cluster()))
}

/// The decision for a name that is the cluster's, at an ordinary address of a Service.
fn as_service(policy: &Policy, target: &str) -> Result<String, String> {
    let ways = policy.judge_name(&target.parse().unwrap()).map_err(|denial| denial.to_string())?;
    let service = ways.service.ok_or("no way to a Service")?;
    let judged = policy.judge_service(&service, "10.96.7.7".parse().unwrap(), &[]);
    judged.map(|grant| format!("{} by {grant}", service.target())).map_err(|denial| denial.to_string())
}

#[test]
fn the_resolvers_search_list_tells_domain_and_namespace() {
    for (name, full) in [
        ("grafana", Some("grafana.agents.svc.example.org")),
        ("grafana.monitoring", Some("grafana.monitoring.svc.example.org")),
        ("grafana.monitoring.svc", Some("grafana.monitoring.svc.example.org")),
        ("grafana.monitoring.svc.example.org", Some("grafana.monitoring.svc.example.org")),
        ("db-0.db.prod", Some("db-0.db.prod.svc.example.org")),
        // Whatever it is outside, here it can only be this.
        ("api.github.com", Some("api.github.com.svc.example.org")),
        // A pod's name is the address that it spells.
        ("10-0-0-5.default.pod.example.org", None),
        ("example.org", Some("example.org.svc.example.org")),
    ] {
        assert_eq!(cluster().service(name).as_deref(), full, "{name}");
    }
    assert_eq!(cluster().service(&"a".repeat(250)), None);
    let plain = Cluster::new("10.96.0.1:443".parse().unwrap(), "search corp.test\n");
    assert_eq!(plain.service("a.b").unwrap(), "a.b.svc.cluster.local");
    assert_eq!(plain.service("a").unwrap(), "a.svc.cluster.local");
}

#[test]
fn without_a_rule_the_clusters_api_and_services_are_open_and_nothing_else() {
    let own = within(&[], &[]);
    assert_eq!(
        as_service(&own, "grafana.monitoring:80").unwrap(),
        "grafana.monitoring.svc.example.org:80 by the cluster's own"
    );
    assert_eq!(decide(&own, "10.96.0.1:443", "10.96.0.1"), Ok("the cluster's own".into()));
    for (target, address) in [
        ("10.96.0.1:6443", "10.96.0.1"),
        ("10.96.7.7:80", "10.96.7.7"),
        ("10.244.0.9:80", "10.244.0.9"),
        ("192.168.1.10:10250", "192.168.1.10"),
        ("169.254.169.254:80", "169.254.169.254"),
        ("127.0.0.1:80", "127.0.0.1"),
    ] {
        let said = decide(&own, target, address).unwrap_err();
        assert!(said.contains(&format!("--allow '{target}' (and --allow @cluster ")), "{said}");
    }
    // A name is only ever the Service's: where there is none, it opens nothing.
    for target in ["api.github.com:443", "grafana.monitoring:80"] {
        let ways = own.judge_name(&target.parse().unwrap()).unwrap();
        assert!(ways.service.is_some() && !ways.given);
    }
    assert!(own.judge_name(&"10-0-0-5.default.pod.example.org:80".parse().unwrap()).is_err());
    // A Service without a selector, or of another name's answer, leads to no special address.
    let service = own.judge_name(&"web.a:80".parse().unwrap()).unwrap().service.unwrap();
    for special in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1"] {
        assert!(own.judge_service(&service, special.parse().unwrap(), &[]).is_err(), "{special}");
    }
}

#[test]
fn a_rule_takes_the_place_of_the_default_and_may_bring_it_back() {
    let one = within(&["grafana.monitoring:80"], &[]);
    for form in ["grafana.monitoring.svc:80", "grafana.monitoring.svc.example.org:80"] {
        assert!(as_service(&one, form).unwrap().ends_with("by allow grafana.monitoring:80"), "{form}");
    }
    for closed in
        ["grafana.monitoring:81", "other.monitoring:80", "10.96.0.1:443", "grafana.monitoring.svc.evil.test:80"]
    {
        assert!(as_service(&one, closed).is_err() && !allowed(&one, "10.96.0.1:443", "10.96.0.1"), "{closed}");
    }
    let both = within(&["@cluster", "10.244.0.0/16"], &[]);
    assert!(as_service(&both, "other.monitoring:80").unwrap().ends_with("by allow @cluster"));
    assert!(allowed(&both, "10.96.0.1:443", "10.96.0.1") && allowed(&both, "10.244.1.1:80", "10.244.1.1"));
    assert!(!allowed(&both, "10.96.7.7:80", "10.96.7.7"));
    assert!(as_service(&within(&["@cluster:80"], &[]), "a.b:81").is_err());
}

#[test]
fn outside_a_pod_a_rule_opens_the_same_name_with_svc() {
    let outside = policy(&["grafana.monitoring:80", "web:80"], &[]);
    for open in ["grafana.monitoring:80", "grafana.monitoring.svc:80", "web:80"] {
        assert!(allowed(&outside, open, "10.0.0.1"), "{open}");
    }
    for closed in ["grafana.monitoring:81", "grafana.monitoring.svc:81", "grafana.other.svc:80", "web.svc:80"] {
        assert!(!allowed(&outside, closed, "10.0.0.1"), "{closed}");
    }
}

#[test]
fn a_denied_service_is_denied_by_each_of_its_names_and_addresses() {
    let names = [
        "grafana.monitoring",
        "grafana.monitoring.svc",
        "grafana.monitoring.svc.example.org",
        "GRAFANA.Monitoring.svc.example.org.",
        "grafana.monitoring.svc.cluster.local",
        "grafana.monitoring.svc.some.where.else",
    ];
    for denied in names {
        for within in [within(&["*", "@cluster"], &[denied]), policy(&["*"], &[denied])] {
            for name in names {
                let target = format!("{name}:80").parse().unwrap();
                assert!(within.judge_name(&target).is_err(), "{denied}: {name}");
            }
            assert!(within.judge_name(&"loki.monitoring:80".parse().unwrap()).is_ok(), "{denied}");
            // What it resolves to, and by which names that is asked, the dial finds out.
            let (rule, host) = within.denied_names(80).next().unwrap();
            assert_eq!(rule.name(80), host.name());
            let found = |address: &str| [DeniedAddress { rule: rule.clone(), address: address.parse().unwrap() }];
            for (target, address) in
                [("10.96.7.7:80", "10.96.7.7"), ("alias.test:80", "10.96.7.7"), ("x.test:80", "::ffff:10.96.7.7")]
            {
                let judged =
                    within.judge_address(&target.parse().unwrap(), address.parse().unwrap(), &found("10.96.7.7"));
                assert!(judged.unwrap_err().to_string().contains("whose address this is"), "{denied}: {target}");
            }
            let configured = within.for_configured();
            let judged =
                configured.judge_address(&"a:80".parse().unwrap(), "10.9.9.9".parse().unwrap(), &found("10.9.9.9"));
            assert!(judged.is_err());
        }
    }
    // In the agent's own namespace a Service has one name more.
    for (denied, name) in [("web", "web.agents"), ("web.agents.svc", "web"), ("web", "web.agents.svc.example.org")] {
        assert!(
            within(&["*"], &[denied]).judge_name(&format!("{name}:80").parse().unwrap()).is_err(),
            "{denied} {name}"
        );
    }
    // Ports bound it, for the names as for the look-ups.
    let one = within(&["*"], &["grafana.monitoring:80"]);
    assert!(one.judge_name(&"grafana.monitoring.svc:81".parse().unwrap()).is_ok());
    assert_eq!((one.denied_names(80).count(), one.denied_names(81).count()), (2, 0));
}

#[test]
fn a_pattern_denies_every_form_and_addresses_without_a_name() {
    let denied = within(&["*"], &["*.prod.svc:5432"]);
    for name in ["db.prod", "db.prod.svc", "db.prod.svc.example.org", "db-0.db.prod", "db-0.db.prod.svc.cluster.local"]
    {
        assert!(denied.judge_name(&format!("{name}:5432").parse().unwrap()).is_err(), "{name}");
    }
    let said = decide(&denied, "10.96.7.7:5432", "10.96.7.7").unwrap_err();
    assert!(said.contains("an address has none; start the agent with --allow '10.96.7.7:5432'"), "{said}");
    for disguise in ["0x0a600707", "10.96.1799", "174065415", "10.0x60.0x7.0x7"] {
        assert!(!allowed(&denied, &format!("{disguise}:5432"), "10.96.7.7"), "{disguise}");
    }
    assert!(allowed(&denied, "10.96.7.7:80", "10.96.7.7") && allowed(&denied, "0xa.test:5432", "10.96.7.7"));
    assert!(allowed(&within(&["*", "10.96.0.0/16"], &["*.prod.svc"]), "10.96.7.7:5432", "10.96.7.7"));
}

#[test]
fn what_the_agent_exports_is_open_and_no_more() {
    let exports = ["127.0.0.1:9100", "node.test:9100", "localhost:9200"].map(|target| target.parse().unwrap());
    let policy = policy(&[], &[]).exporting(&exports);
    assert!(allowed(&policy, "127.0.0.1:9100", "127.0.0.1") && allowed(&policy, "localhost:9200", "127.0.0.1"));
    assert!(allowed(&policy, "node.test:9100", "10.0.0.9"));
    for closed in ["127.0.0.1:9101", "node.test:9101", "localhost:9201", "10.0.0.9:9100"] {
        let address = if closed.starts_with("10") { "10.0.0.9" } else { "127.0.0.1" };
        let judged = policy.judge_name(&closed.parse().unwrap()).map(drop);
        let judged = judged
            .and_then(|()| policy.judge_address(&closed.parse().unwrap(), address.parse().unwrap(), &[]).map(drop));
        assert!(judged.is_err(), "{closed}");
    }
}

#[test]
fn one_line_tells_what_is_open() {
    for (policy, line) in [
        (policy(&[], &[]), "nothing but what is configured; add --allow"),
        (
            within(&[], &["vault.security"]),
            "the cluster's Kubernetes API and Services, by their names; never: vault.security",
        ),
        (within(&["@cluster", "10.0.0.0/8:80"], &[]), "@cluster 10.0.0.0/8:80"),
        (policy(&["*"], &[]).exporting(&["a:1".parse().unwrap()]), "*; exports: a:1"),
    ] {
        assert_eq!(policy.to_string(), line);
    }
}

proptest! {
    /// A name, any form of it, and a rule of any form of it: denied, whatever is allowed.
    #[test]
    fn no_form_of_a_name_walks_around_a_rule(
        service in "[a-z]([a-z0-9-]{0,6}[a-z0-9])?",
        namespace in "[a-z]([a-z0-9-]{0,6}[a-z0-9])?",
        pod in proptest::option::of("[a-z][0-9]?"),
        forms in (0_usize..5, 0_usize..5),
        upper: bool,
        dot: bool,
        inside: bool,
    ) {
        let stem = pod.iter().cloned().chain([service, namespace]).collect::<Vec<_>>().join(".");
        let form = |at: usize| format!("{stem}{}", ["", ".svc", ".svc.example.org", ".svc.cluster.local", ".svc.other.test"][at]);
        let (denied, mut asked) = (form(forms.0), form(forms.1));
        if upper {
            asked = asked.to_ascii_uppercase();
        }
        if dot {
            asked.push('.');
        }
        let policy = policy(&["*"], &[&denied]).within(inside.then(cluster));
        prop_assert!(policy.judge_name(&Target::new(&asked, 80).unwrap()).is_err(), "{denied} {asked}");
    }

    /// The full name is one name: whoever says it in another form means the same Service.
    #[test]
    fn every_form_of_a_service_is_one_full_name(service in "[a-z][a-z0-9]{0,6}", namespace in "[a-z][a-z0-9]{0,6}") {
        let full = format!("{service}.{namespace}.svc.example.org");
        for form in cluster().forms(&full) {
            prop_assert_eq!(cluster().service(&form), Some(full.clone()));
        }
        prop_assert_eq!(cluster().service(&full), Some(full));
    }
}
