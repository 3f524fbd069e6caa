//! The configuration as operators write it.

use secrecy::ExposeSecret;

use super::*;

const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn resolve(line: &str, environment: &[(&str, &str)]) -> Result<(Command, LogFormat), Stop> {
    let around = Surroundings {
        environment: &|name| environment.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into()),
        is_root: false,
        host_name: "Node_1.example",
        resolv_conf: "search a.svc.b.c svc.b.c b.c\n",
    };
    Command::read_with(std::iter::once("proxy-agent").chain(line.split_whitespace()).map(OsString::from), &around)
}

fn run(line: &str, environment: &[(&str, &str)]) -> Config {
    match resolve(line, environment).unwrap().0 {
        Command::Run(config) => config,
        Command::Join { .. } => panic!("not a join"),
    }
}

fn errors(line: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match resolve(line, environment) {
        Err(Stop::Problems(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_need_nothing_but_a_home() {
    let config = run("run", &[("HOME", "/home/me")]);
    assert_eq!(config.state, Path::new("/home/me/.local/state/cluster-proxy-agent"));
    assert_eq!(config.metrics_listen, Some("127.0.0.1:8093".parse().unwrap()));
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.kube_api, KubeApi::Assumed("kubernetes.default.svc:443".parse().unwrap()));
    assert!(config.hubs.is_empty());
}

#[test]
fn what_is_open_without_a_rule_depends_on_where_the_agent_runs() {
    let pod = [("HOME", "/h"), ("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];
    let service = "grafana.monitoring:80".parse().unwrap();
    let outside = run("run", &pod[..1]).policy;
    assert!(outside.judge_name(&service).unwrap_err().to_string().contains("--allow 'grafana.monitoring:80'"));
    let inside = run("run", &pod).policy;
    let full = inside.judge_name(&service).unwrap().service.unwrap();
    assert_eq!(full.target().to_string(), "grafana.monitoring.svc.b.c:80");
    let api = "10.96.0.1:6443".parse().unwrap();
    assert!(inside.judge_address(&api, "10.96.0.1".parse().unwrap(), &[]).is_ok());
    assert!(errors("run --allow @cluster", &pod[..1])[0].contains("KUBERNETES_SERVICE_HOST"));
    assert!(errors("run --deny @cluster:80", &pod)[0].contains("names no host"));
}

#[test]
fn every_setting_can_come_from_every_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "hub = [\"a\", \"b:1\"]\nallow = [\"*.svc\"]\ndrain-timeout = \"1m\"\nstate = \"/file\"\nkube-api = \"api:6443\"\nlog-format = \"json\"").unwrap();
    let line = format!("run --config {} --drain-timeout 5s --metrics-listen none", file.display());
    let (command, log) = resolve(&line, &[("CLUSTER_PROXY_STATE", "/environment")]).unwrap();
    let Command::Run(config) = command else { panic!("not a run") };
    assert_eq!(config.state, Path::new("/environment"));
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.metrics_listen, None);
    assert_eq!(config.hubs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:8091", "b:1"]);
    assert_eq!(config.kube_api, KubeApi::Configured("api:6443".parse().unwrap()));
    assert_eq!(log, LogFormat::Json);
}

#[test]
fn a_pod_knows_its_api_server() {
    let environment = [("HOME", "/h"), ("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];
    assert_eq!(run("run", &environment).kube_api, KubeApi::Assumed("10.96.0.1:6443".parse().unwrap()));
}

#[test]
fn a_join_takes_its_name_from_the_host_and_its_token_from_the_environment() {
    let line = format!("join --hub h1,h2:1 --pin {PIN} --state /s --timeout 90s --run --deny *.prod");
    let (command, _) = resolve(&line, &[("CLUSTER_PROXY_TOKEN", "cpj-id.secret")]).unwrap();
    let Command::Join { join, then_run } = command else { panic!("not a join") };
    assert_eq!(&*join.agent, "node-1");
    assert_eq!((join.cluster, join.timeout, join.hubs.len()), (None, Duration::from_secs(90), 2));
    assert_eq!(join.token.expose_secret(), "cpj-id.secret");
    assert_eq!(then_run.unwrap().state, Path::new("/s"));
}

#[test]
fn a_token_is_not_in_the_debug_output() {
    let line = format!("join --hub h --pin {PIN} --state /s --token cpj-id.secret");
    let (command, _) = resolve(&line, &[]).unwrap();
    assert!(!format!("{command:?}").contains("secret\""));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let line = "join --hub :1 --pin sha256:12 --cluster C_1 --agent a_ --timeout soon --drain-timeout=-1s --max-mtu 576 \
                --metrics-listen here --log-format xml --allow 10.0.*";
    let errors = errors(line, &[]);
    for name in [
        "hub",
        "pin",
        "cluster",
        "agent",
        "timeout",
        "drain-timeout",
        "max-mtu",
        "metrics-listen",
        "log-format",
        "allow",
    ] {
        assert!(errors.iter().any(|error| error.starts_with(&format!("--{name}: "))), "{name}: {errors:#?}");
    }
    assert_eq!(errors.iter().filter(|error| error.starts_with("--hub")).count(), 1, "{errors:#?}");
    assert!(errors.iter().any(|error| error.starts_with("--token is missing")), "{errors:#?}");
    assert!(errors.iter().any(|error| error.starts_with("--state is missing")), "{errors:#?}");
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let line = format!("run --state /s --config {}", file.display());
    let told = errors(&line, &[]);
    assert!(told.len() == 1 && told[0].starts_with("--config: cannot read /") && told[0].contains("agent.toml"));
    fs::write(&file, "hub = ").unwrap();
    let told = errors(&line, &[]);
    assert!(told.len() == 1 && told[0].contains("agent.toml is no TOML"), "{told:?}");
    fs::write(&file, "hubs = [\"a\"]").unwrap();
    assert_eq!(
        errors(&line, &[]),
        ["'hubs' in the file of --config is no setting of this command; did you mean 'hub'?"]
    );
}

#[test]
fn host_names_become_agent_names() {
    for (host, agent) in [("node-1", Some("node-1")), ("Node_1.x", Some("node-1")), ("", None), ("-", None)] {
        assert_eq!(agent_name(host).as_deref(), agent, "{host}");
    }
}

#[test]
fn the_command_line_is_well_formed() {
    <Table as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.toml"), folder.path().join("second.toml"));
    let printed =
        |line: &str, environment: &[(&str, &str)]| match resolve(&format!("{line} --print-config"), environment) {
            Err(Stop::Printed(text)) => text,
            other => panic!("{other:?}"),
        };
    fs::write(&first, "[[export]]\nname = \"node\"\ntarget = \"node:9100\"\nlabels = { team = \"x\" }").unwrap();
    let line =
        format!("join --hub a,b:1 --pin {PIN} --allow 10.0.0.0/8,x --run --state /s --config {}", first.display());
    let text = printed(&line, &[("CLUSTER_PROXY_TOKEN", "cpj-id.secret")]);
    assert!(!text.contains("secret\""), "{text}");
    for shown in
        ["hub = [\"a\", \"b:1\"] # --hub\n", "agent = \"node-1\" # default\n", "gateway = \"impersonate\" # default\n"]
    {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    fs::write(&second, &text).unwrap();
    let again = printed(&format!("join --config {}", second.display()), &[]);
    assert_eq!(text.parse::<toml::Table>().unwrap(), again.parse().unwrap());
}
