//! The hub's configuration: where a setting comes from, and what is wrong with it.

use super::*;

fn parse(arguments: &[&str]) -> Result<Config, Stop> {
    let line = std::iter::once("proxy-server").chain(arguments.iter().copied()).map(OsString::from);
    Config::read_with(line, &|_| None, None)
}

fn problems(arguments: &[&str]) -> Vec<String> {
    match parse(arguments) {
        Err(Stop::Problems(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.toml");
    let text = "dial-timeout = \"3s\"\nplaintext = \"never\"\nmax-pending-per-user = 7\nadvertise = [\"hub\"]\n";
    std::fs::write(&path, text).unwrap();
    let config = parse(&["--state", "/s", "--config", path.to_str().unwrap(), "--plaintext", "any"]).unwrap();
    assert_eq!(config.dial_timeout, Duration::from_secs(3));
    assert_eq!(config.plaintext, Plaintext::Any);
    assert_eq!(config.caps.pending_per_user, 7);
    assert_eq!(config.advertise, ["hub"]);
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.proxy_listen, "[::]:8090".parse().unwrap());
}

#[test]
fn the_store_is_a_file_unless_it_is_etcd() {
    assert_eq!(parse(&["--state", "/s"]).unwrap().etcd, None);
    let arguments = ["--state", "/s", "--store", "etcd", "--etcd-endpoint", "https://a:2379,https://b:2379"];
    let tls = ["--etcd-ca", "ca", "--etcd-cert", "cert", "--etcd-key", "key"];
    let expected = Etcd {
        endpoints: vec!["https://a:2379".into(), "https://b:2379".into()],
        ca: Some("ca".into()),
        identity: Some(("cert".into(), "key".into())),
        prefix: "/cluster-proxy".into(),
    };
    assert_eq!(parse(&[&arguments[..], &tls].concat()).unwrap().etcd, Some(expected));
    for (wrong, named) in [
        (&["--store", "sqlite"][..], "store"),
        (&["--store", "etcd"], "etcd-endpoint"),
        (&["--etcd-endpoint", "http://a"], "store"),
        (&["--store", "etcd", "--etcd-endpoint", "a:2379"], "etcd-endpoint"),
        (&["--store", "etcd", "--etcd-endpoint", "https://a"], "etcd-ca"),
        (&["--store", "etcd", "--etcd-endpoint", "http://a", "--etcd-cert", "c"], "etcd-key"),
        (&["--store", "etcd", "--etcd-endpoint", "http://a", "--etcd-prefix", &"p".repeat(129)], "etcd-prefix"),
    ] {
        let problems = problems(&[&["--state", "/s"], wrong].concat());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("--{named}")), "{problems:?}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.toml");
    std::fs::write(&path, "surprise = 1\n").unwrap();
    let arguments = [
        "--config",
        path.to_str().unwrap(),
        "--proxy-listen",
        "nowhere",
        "--dial-timeout",
        "0s",
        "--log-format",
        "xml",
        "--max-pending-per-user",
        "0",
        "--clusters-domain",
        "a..b",
    ];
    let all = problems(&arguments).join("\n");
    for name in ["surprise", "proxy-listen", "dial-timeout", "log-format", "max-pending-per-user", "clusters-domain"] {
        assert!(all.contains(name), "{name} in {all}");
    }
    assert!(all.contains("--state is missing: neither XDG_STATE_HOME nor HOME"), "{all}");
}

#[test]
fn clear_text_is_for_this_machine_by_default() {
    let plaintext = parse(&["--state", "/s"]).unwrap().plaintext;
    assert!(plaintext.allows("::ffff:127.0.0.1".parse().unwrap()));
    assert!(!plaintext.allows("192.0.2.1".parse().unwrap()));
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.toml");
    let printed = |line: &[&str]| match parse(&[line, &["--print-config"]].concat()) {
        Err(Stop::Printed(text)) => text,
        other => panic!("{other:?}"),
    };
    let line =
        ["--state", "/s", "--advertise", "a,b", "--store", "etcd", "--etcd-endpoint", "http://c", "--workers", "3"];
    let socket = ["--proxy-socket", "/run/a=edge", "--agent-certificate-lifetime", "87600h", "--print-addresses"];
    let line = [&line[..], &socket].concat();
    let first = printed(&line);
    for shown in ["workers = 3 # --workers\n", "dial-timeout = \"10s\" # default\n", "max-mtu = 9000 # default\n"] {
        assert!(first.contains(shown), "{shown} in {first}");
    }
    std::fs::write(&path, &first).unwrap();
    let file = ["--config", path.to_str().unwrap()];
    assert_eq!(first.parse::<toml::Table>().unwrap(), printed(&file).parse().unwrap());
    assert_eq!(parse(&line).unwrap(), parse(&file).unwrap());
}

#[test]
fn the_command_line_is_well_formed() {
    <Table as clap::CommandFactory>::command().debug_assert();
}
