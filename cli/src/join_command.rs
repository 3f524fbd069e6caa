//! `join-command`: the one line to paste in a cluster.

use std::time::Duration;

use certs::ClusterName;
use clap::{ArgAction, Args};
use registry::api::{HubStatus, NewToken};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    api::Api,
    duration,
    failure::{Exit, Failure},
    output::{note, print},
    token,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy join-command edge-1\n  \
    cluster-proxy join-command edge-1 --allow grafana.monitoring:80\n  \
    cluster-proxy join-command --ttl 24h\n\n\
    The line holds a token: whoever has it joins with it, once. It goes to the agent's standard input and into no process's \
    arguments, which other users of the machine see.")]
pub(crate) struct JoinCommand {
    /// The cluster that is to join [default: the one pasting the line says its name with --cluster]
    #[arg(value_name = "CLUSTER")]
    cluster: Option<ClusterName>,
    /// How long the line is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    ttl: Duration,
    /// Whether the cluster is in without 'cluster-proxy accept' [default: true when CLUSTER is named]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    auto_accept: Option<bool>,
    /// What the agent is to let the hub reach; may be given several times [default: in a pod its cluster's Kubernetes API
    /// and Services, elsewhere nothing]
    #[arg(long, value_name = "HOST_OR_CIDR[:PORT]", value_parser = rule)]
    allow: Vec<String>,
}

impl JoinCommand {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        let status: HubStatus = api.get("/v1/status").await?;
        if status.agent_addresses.is_empty() {
            let failure = Failure::new(Exit::Other, "the hub does not know under which address agents reach it");
            return Err(failure.next("start it with 'proxy-server --advertise HOST'"));
        }
        let auto_accept = self.auto_accept.unwrap_or_else(|| self.cluster.is_some());
        let new =
            NewToken { cluster: self.cluster.clone(), auto_accept, reusable: false, ttl_seconds: self.ttl.as_secs() };
        let created = token::create(api, &new).await?;
        note("Paste in the cluster, on a machine that reaches the hub:");
        print(line(&status, &created.token, self.cluster.is_none(), &self.allow))?;
        if !auto_accept {
            note("Then let it in here: cluster-proxy accept NAME");
        }
        Ok(())
    }
}

/// A rule as the agent takes it, and one word of the line, whatever shell that is pasted into.
fn rule(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b".-_*:/[]@".contains(&byte);
    if text.is_empty() || !text.bytes().all(inner) {
        return Err("write a host's name, an address or a CIDR, and a port, like grafana.monitoring:80".to_owned());
    }
    // One colon, or one behind brackets, is before the port; more are an IPv6 address.
    let port = match text.rsplit_once(']') {
        Some((_, rest)) => rest.strip_prefix(':'),
        None => text.split_once(':').map(|(_, port)| port).filter(|rest| !rest.contains(':')),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let is_range = |port: &str| match port.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(port).is_some(),
    };
    if port.is_some_and(|port| !is_range(port)) {
        return Err("write the port as a number or a range: grafana.monitoring:80, 10.0.0.5:8000-8100".to_owned());
    }
    Ok(text.to_owned())
}

/// The shell's own `echo` is no process. `name_wanted`: the token is for any name, so that the line has to say one.
fn line(status: &HubStatus, token: &SecretString, name_wanted: bool, allow: &[String]) -> String {
    // A shell takes the asterisk and the brackets of some.
    let allow: String = allow.iter().map(|rule| format!(" --allow '{rule}'")).collect();
    let cluster = if name_wanted { " --cluster \"$(hostname -s)\"" } else { "" };
    format!(
        "echo {} | proxy-agent join --hub {} --token-file - --pin {}{cluster}{allow} --run",
        token.expose_secret(),
        status.agent_addresses.join(","),
        status.pin,
    )
}

#[cfg(test)]
mod tests {
    use registry::api::ClusterCounts;

    use super::*;

    #[test]
    fn the_line_is_one_line_with_everything_in_it() {
        let status = HubStatus {
            version: String::new(),
            server_id: String::new(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            pin: "sha256:ab".into(),
            agent_addresses: vec!["hub:8091".into(), "[::1]:8091".into()],
            proxy_address: String::new(),
            api_address: String::new(),
            clusters: ClusterCounts::default(),
            connections: 0,
            tunnels: 0,
        };
        assert_eq!(
            line(&status, &"cpj-a.b".into(), false, &[]),
            "echo cpj-a.b | proxy-agent join --hub hub:8091,[::1]:8091 --token-file - --pin sha256:ab --run"
        );
        assert!(line(&status, &"cpj-a.b".into(), true, &[]).contains(" --cluster "));
        for bad in [
            "",
            "a' --run; x '",
            "a b",
            "$(x)",
            "a,b",
            "`x`",
            "a\nb",
            "host:http",
            "[::1]:http",
            "host:",
            "a:0",
            "a:99999",
            "a:5-1",
            "a:80-",
            "a:1-2-3",
        ] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
        for good in ["fd00::/8", "[fd00::/8]:443", "a:1-2", "10.0.0.0/8", "*"] {
            assert_eq!(rule(good).as_deref(), Ok(good));
        }
        let allow = ["grafana.monitoring:80", "*.svc", "@cluster"].map(|text| rule(text).unwrap());
        let allowing = line(&status, &"cpj-a.b".into(), false, &allow);
        assert!(
            allowing.ends_with(" --allow 'grafana.monitoring:80' --allow '*.svc' --allow '@cluster' --run"),
            "{allowing}"
        );
    }
}
