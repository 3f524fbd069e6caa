//! The main job, done: every way to every spoke's service, with what was asked and what was answered.

use std::{net::SocketAddr, sync::Arc};

use certs::Credentials;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    clients::{ClientError, Proxied, direct},
    error::DemoError,
    service::greeting,
    spoke::Spoke,
};
use crate::{
    failure::{Exit, Failure},
    output,
    port_forward::{Address, Entry, Pair, Reporter, Service, bind, serve},
    table::{Cell, Table},
};

/// What came of the attempts.
#[derive(Debug, Default)]
pub(super) struct Proof {
    attempts: Vec<Attempt>,
}

/// One way to one service.
#[derive(Debug)]
struct Attempt {
    cluster: String,
    way: &'static str,
    request: String,
    answer: String,
    /// Whether the answer is the expected one.
    good: bool,
}

/// Tries every way to every spoke's service, and one way past its agent's policy.
pub(super) async fn prove(proxy: SocketAddr, user: &Credentials, spokes: &[Spoke]) -> Result<Proof, Failure> {
    let mut proof = Proof::default();
    let token = user.token.clone().unwrap_or_default();
    for spoke in spokes {
        let (cluster, target) = (spoke.cluster.as_ref(), spoke.service);
        let through = Proxied { proxy, cluster, token: &token, target };
        proof.add(cluster, "HTTP CONNECT", format!("CONNECT {target}, then GET /"), through.connect().await);
        proof.add(cluster, "absolute form", format!("GET http://{target}/"), through.absolute_form().await);
        proof.add(cluster, "SOCKS5", format!("connect to {target}, then GET /"), through.socks5().await);
        let (local, answer) = forwarded(user, spoke).await?;
        proof.add(cluster, "port-forward", format!("GET http://{local}/"), answer);
    }
    for (spoke, other) in spokes.iter().zip(spokes.iter().skip(1)) {
        let (cluster, target) = (spoke.cluster.as_ref(), other.service);
        let through = Proxied { proxy, cluster, token: &token, target };
        proof.add_refused(cluster, format!("CONNECT {target}, which is {}'s", other.cluster), through.connect().await);
    }
    Ok(proof)
}

/// As 'cluster-proxy port-forward -c CLUSTER 127.0.0.1 :PORT' and a GET of the local port.
async fn forwarded(user: &Credentials, spoke: &Spoke) -> Result<(SocketAddr, Result<String, ClientError>), Failure> {
    let entry = Arc::new(Entry::new(user, &spoke.cluster)?);
    let target = spoke.service.ip().to_string().parse().map_err(DemoError::Target)?;
    let locals = bind(&[Address::Localhost], Pair { local: 0, remote: spoke.service.port() })?;
    let local = locals[0].address;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let service = Service { entry, target, reporter: Reporter::Failures, traffic: Arc::default() };
    let answer = tokio::select! {
        () = serve(locals, service, &tasks, &stop) => Err(ClientError::TimedOut),
        answer = direct(local) => answer,
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok((local, answer))
}

impl Proof {
    /// Whether every attempt reached its service.
    pub(super) fn is_complete(&self) -> bool {
        !self.attempts.is_empty() && self.attempts.iter().all(|attempt| attempt.good)
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&["CLUSTER", "WAY", "REQUEST", "ANSWER"]);
        for Attempt { cluster, way, request, answer, good } in &self.attempts {
            let style = if *good { output::GOOD } else { output::BAD };
            table.row([
                cluster.as_str().into(),
                (*way).into(),
                request.as_str().into(),
                Cell::styled(answer.as_str(), style),
            ]);
        }
        table
    }

    fn add(&mut self, cluster: &str, way: &'static str, request: String, answer: Result<String, ClientError>) {
        let expected = format!("200 {}", greeting(cluster));
        let good = answer.as_ref().is_ok_and(|answer| *answer == expected);
        self.attempts.push(Attempt { cluster: cluster.into(), way, request, answer: shown(answer), good });
    }

    /// An attempt that the agent's policy must refuse.
    fn add_refused(&mut self, cluster: &str, request: String, answer: Result<String, ClientError>) {
        let good = matches!(&answer, Err(ClientError::Refused(line)) if line.starts_with("HTTP/1.1 403"));
        self.attempts.push(Attempt {
            cluster: cluster.into(),
            way: "HTTP CONNECT",
            request,
            answer: shown(answer),
            good,
        });
    }
}

fn shown(answer: Result<String, ClientError>) -> String {
    answer.unwrap_or_else(|error| Failure::new(Exit::Other, error).line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clusters_own_greeting_counts() {
        let mut proof = Proof::default();
        assert!(!proof.is_complete());
        proof.add("c1", "SOCKS5", String::new(), Ok("200 hello from c1".into()));
        assert!(proof.is_complete());
        proof.add("c2", "SOCKS5", String::new(), Ok("200 hello from c1".into()));
        assert!(!proof.is_complete());
        proof.add("c2", "SOCKS5", String::new(), Err(ClientError::TimedOut));
        assert!(proof.table().render().contains("no answer within 15 seconds"));
    }

    #[test]
    fn a_target_outside_the_policy_must_be_forbidden() {
        let mut proof = Proof::default();
        proof.add_refused("c1", String::new(), Err(ClientError::Refused("HTTP/1.1 403 Forbidden".into())));
        assert!(proof.is_complete());
        proof.add_refused("c1", String::new(), Ok("200 hello from c2".into()));
        assert!(!proof.is_complete());
    }
}
