//! The policy as a table of decisions, and what must hold for every policy.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;

mod cluster;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Policy::new(rules(allow), rules(deny))
}

/// The whole decision for a host that resolves to `address`.
fn decide(policy: &Policy, target: &str, address: &str) -> Result<String, String> {
    let target: Target = target.parse().unwrap();
    let ways = policy.judge_name(&target).map_err(|denial| denial.to_string())?;
    assert!(ways.given, "{ways:?}");
    policy
        .judge_address(&target, address.parse().unwrap(), &[])
        .map(|grant| grant.to_string())
        .map_err(|denial| denial.to_string())
}

fn allowed(policy: &Policy, target: &str, address: &str) -> bool {
    decide(policy, target, address).is_ok()
}

#[test]
fn an_empty_policy_allows_nothing_and_a_star_all_but_special_addresses() {
    let (closed, open) = (policy(&[], &[]), policy(&["*"], &[]));
    assert_eq!(decide(&open, "web:80", "10.0.0.7"), Ok("allow *".into()));
    for target in ["web:80", "10.0.0.7:80", "[2001:db8::1]:443", "kubernetes.default.svc:443"] {
        let said = decide(&closed, target, "10.0.0.7").unwrap_err();
        assert!(
            said.contains(&format!("only what --allow names is open; start the agent with --allow '{target}'")),
            "{said}"
        );
    }
    for address in [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "169.254.1.1",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "::127.0.0.1",
    ] {
        assert!(!allowed(&open, "web:80", address), "{address}");
    }
}

#[test]
fn a_wide_rule_names_no_special_address() {
    let wide = policy(&["*", "0.0.0.0/0", "::/0", "126.0.0.0/7", "*host", "web"], &[]);
    for (target, address) in [
        ("web:80", "127.0.0.1"),
        ("localhost:80", "127.0.0.1"),
        ("localhost:80", "::1"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("web:80", "169.254.169.254"),
        ("web:80", "fe80::1"),
    ] {
        assert!(!allowed(&wide, target, address), "{target} {address}");
    }
    assert!(allowed(&wide, "web:80", "8.8.8.8"));
}

#[test]
fn a_rule_inside_the_special_range_names_its_addresses() {
    for (rule, address, neighbour) in [
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.0/8", "127.9.9.9", "169.254.0.1"),
        ("127.0.0.1:80", "::ffff:127.0.0.1", "127.0.0.2"),
        ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("::1", "::1", "127.0.0.1"),
        ("169.254.0.0/16", "169.254.7.7", "169.254.169.254"),
        ("169.254.169.254", "169.254.169.254", "169.254.7.7"),
        ("fe80::/10", "fe80::1", "fe80::a9fe:a9fe"),
        ("100.100.100.200", "100.100.100.200", "192.0.0.192"),
    ] {
        assert!(allowed(&policy(&[rule], &[]), "web:80", address), "{rule} {address}");
        assert!(!allowed(&policy(&[rule], &[]), "web:80", neighbour), "{rule} {neighbour}");
    }
    assert!(!allowed(&policy(&["127.0.0.1:81"], &[]), "web:80", "127.0.0.1"));
}

#[test]
fn localhost_is_named_by_its_name_and_only_as_loopback() {
    let local = policy(&["localhost:80"], &[]);
    assert_eq!(decide(&local, "localhost:80", "127.0.0.1"), Ok("allow localhost:80".into()));
    assert!(allowed(&local, "LOCALHOST.:80", "::1"));
    assert!(!allowed(&local, "localhost:81", "127.0.0.1"));
    assert!(!allowed(&local, "127.0.0.1:80", "127.0.0.1"));
    assert!(!allowed(&local, "localhost:80", "169.254.169.254"));
    assert!(!allowed(&policy(&["rebound"], &[]), "rebound:80", "127.0.0.1"));
}

#[test]
fn with_an_allow_rule_only_what_is_named_is_allowed() {
    let some = policy(&["*.svc:80-90", "10.0.0.0/8:5432"], &[]);
    for (target, address, expected) in [
        ("web.svc:80", "192.168.0.1", true),
        ("web.svc:91", "192.168.0.1", false),
        ("db.corp:5432", "10.1.2.3", true),
        ("db.corp:5432", "192.168.0.1", false),
        ("10.1.2.3:5432", "10.1.2.3", true),
        ("10.1.2.3:80", "10.1.2.3", false),
        ("10.1.2.3:5432", "::ffff:10.1.2.3", true),
    ] {
        assert_eq!(allowed(&some, target, address), expected, "{target} {address}");
    }
}

#[test]
fn deny_wins_over_allow() {
    let both = policy(&["*", "127.0.0.1"], &["*.prod", "10.0.0.0/8", "127.0.0.1:22", "*:25", "[64:ff9b::]/96"]);
    for (target, address, expected) in [
        ("web.test:80", "192.168.0.1", true),
        ("web.prod:80", "192.168.0.1", false),
        ("web.test:80", "10.0.0.1", false),
        ("web.test:80", "::ffff:10.0.0.1", false),
        ("web.test:80", "64:ff9b::c0a8:1", false),
        ("localhost:80", "127.0.0.1", true),
        ("localhost:22", "127.0.0.1", false),
        ("web.test:25", "192.168.0.1", false),
        ("192.168.0.1:25", "192.168.0.1", false),
    ] {
        assert_eq!(allowed(&both, target, address), expected, "{target} {address}");
    }
}

#[test]
fn a_name_that_nothing_could_allow_is_refused_before_it_is_resolved() {
    let target = "db.prod:5432".parse().unwrap();
    for (allow, deny, passes) in [
        (&[][..], &[][..], false),
        (&["*"], &["*.prod"], false),
        (&["*.test"], &[], false),
        (&["10.0.0.0/8:5432"], &[], true),
        (&["10.0.0.0/8:80"], &[], false),
        (&["*.prod"], &["10.0.0.0/8"], true),
    ] {
        assert_eq!(policy(allow, deny).judge_name(&target).is_ok(), passes, "{allow:?} {deny:?}");
    }
}

#[test]
fn a_configured_target_is_bounded_by_deny_rules_alone() {
    let configured = policy(&["*.svc"], &["10.0.0.0/8"]).for_configured();
    assert_eq!(decide(&configured, "api.local:6443", "127.0.0.1"), Ok("configured".into()));
    assert!(!allowed(&configured, "api.local:6443", "10.0.0.1"));
}

#[test]
fn a_refusal_says_what_to_change() {
    for (allow, deny, target, address, text) in [
        (
            &[][..],
            &["*.prod"][..],
            "db.prod:5432",
            "10.0.0.1",
            "the agent's policy refuses db.prod:5432: it denies *.prod; start the agent without --deny '*.prod'",
        ),
        (
            &[],
            &[],
            "localhost:80",
            "127.0.0.1",
            "the agent's policy refuses localhost:80: only what --allow names is open; start the agent with --allow \
             'localhost:80'",
        ),
        (
            &["*.svc"],
            &[],
            "web.test:80",
            "10.0.0.1",
            "the agent's policy refuses web.test:80: no allow rule matches; start the agent with --allow 'web.test:80'",
        ),
        (
            &["*.svc"],
            &[],
            "[::1]:80",
            "::1",
            "the agent's policy refuses [::1]:80: a loopback address of the agent's own host must be named; \
             start the agent with --allow '[::1]:80'",
        ),
    ] {
        assert_eq!(decide(&policy(allow, deny), target, address), Err(text.into()));
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    // Mostly the neighbourhood of special ranges, in every disguise.
    let v4 = prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        (prop_oneof![Just(0_u8), Just(10), Just(127), Just(169), Just(224), Just(255)], any::<[u8; 3]>())
            .prop_map(|(first, [a, b, c])| Ipv4Addr::new(first, if first == 169 { 254 } else { a }, b, c)),
        Just(Ipv4Addr::new(169, 254, 169, 254)),
    ];
    let disguised = (v4, 0_u8..4).prop_map(|(v4, form)| match form {
        0 => IpAddr::V4(v4),
        1 => IpAddr::V6(v4.to_ipv6_mapped()),
        2 => IpAddr::V6(u128::from(u32::from(v4)).into()),
        _ => IpAddr::V6(((0x0064_ff9b_u128 << 96) | u128::from(u32::from(v4))).into()),
    });
    prop_oneof![disguised, any::<[u16; 8]>().prop_map(|segments| IpAddr::V6(segments.into()))]
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = prop_oneof![
        Just("*".to_owned()),
        Just("0.0.0.0/0".to_owned()),
        Just("::/0".to_owned()),
        Just("web*".to_owned()),
        Just("web:80".to_owned()),
        Just("localhost".to_owned()),
        Just("*:80".to_owned()),
        Just("10.0.0.0/8".to_owned()),
        Just("64:ff9b::/96".to_owned()),
    ];
    proptest::collection::vec(rule.prop_map(|text| text.parse().unwrap()), 0..4)
}

proptest! {
    #[test]
    fn no_rule_that_names_nothing_special_opens_a_special_address(allow in any_rules(), deny in any_rules(), address in any_address()) {
        let target: Target = "web.test:80".parse().unwrap();
        if special::special(special::judged(address)).is_some() {
            prop_assert!(Policy::new(allow, deny).judge_address(&target, address, &[]).is_err());
        }
    }

    #[test]
    fn a_denied_address_stays_denied_whatever_is_allowed(allow in any_rules(), address in any_address(), port in 1_u16..) {
        let target = Target { host: Host::Address(address), port };
        let deny = vec![Rule::naming(&Host::Address(address), port)];
        let mut allow = allow;
        allow.push(Rule::naming(&Host::Address(address), port));
        prop_assert!(Policy::new(allow, deny).judge_address(&target, address, &[]).is_err());
    }

    #[test]
    fn every_disguise_of_an_ipv4_address_is_judged_alike(allow in any_rules(), bits: u32, port in 1_u16..) {
        let policy = Policy::new(allow.into_iter().filter(|rule| !rule.to_string().contains(':')).collect(), vec![]);
        let v4 = Ipv4Addr::from(bits);
        let target = Target { host: Host::Name("web.test".into()), port };
        let plain = policy.judge_address(&target, v4.into(), &[]).is_ok();
        prop_assert_eq!(policy.judge_address(&target, v4.to_ipv6_mapped().into(), &[]).is_ok(), plain);
    }

    #[test]
    fn the_remedy_of_a_refusal_works(allow in any_rules(), address in any_address(), port in 1_u16..) {
        let target = Target { host: Host::Address(address), port };
        let policy = Policy::new(allow.clone(), vec![]);
        if let Err(denial) = policy.judge_address(&target, address, &[]) {
            let mut allow = allow;
            allow.push(denial.remedy());
            prop_assert!(Policy::new(allow, vec![]).judge_address(&target, address, &[]).is_ok());
        }
    }
}
