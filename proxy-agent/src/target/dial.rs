//! Connecting to a target in the spoke: judged, resolved, judged again, and connected to within a deadline.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::try_join_all;
use nix::errno::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tunnel::{Reason, Refusal};

use crate::{
    cause::with_cause,
    policy::{Denial, DeniedAddress, Grant, Policy, Ways},
    target::race::race,
    target::resolve::Resolver,
    target::{Host, Target, TargetError},
};

/// A target whose host has vanished without a word is noticed after two minutes: one of silence, then four probes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// Connects to targets. Dropping a dial leaves nothing behind.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    resolver: Resolver,
}

/// Why a target could not be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    BadTarget(#[from] TargetError),
    #[error(transparent)]
    PolicyDenied(#[from] Box<Denial>),
    /// The name servers do not say what a denied name resolves to.
    #[error(
        "cannot check {target} against the rule that denies {denied}: no name server answers for {denied}; fix DNS, or remove \
         the rule"
    )]
    DenialUntold { target: Target, denied: Host },
    #[error("the name of {0} does not resolve in the cluster of the agent")]
    NameNotFound(Target, #[source] io::Error),
    #[error("nothing listens at {0}")]
    ConnectionRefused(Target),
    #[error("{0} cannot be reached from the agent")]
    Unreachable(Target, #[source] io::Error),
    #[error("{target} did not {} within {} ms", .stage.verb(), .limit.as_millis())]
    TimedOut { target: Target, stage: Stage, limit: Duration },
    #[error("{0} reset the connection before it was open")]
    Reset(Target),
    #[error("the agent has too many open files to reach {0}; raise its limit (ulimit -n, LimitNOFILE)")]
    TooManyOpenFiles(Target),
    #[error("connecting to {0} failed")]
    Other(Target, #[source] io::Error),
}

/// What a dial was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Resolving,
    Connecting,
}

impl Dialer {
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }

    /// Connects to `target`, as far as `policy` allows, within `limit`. Returns the address really dialled too.
    pub(crate) async fn dial(
        &self,
        target: &Target,
        policy: &Policy,
        limit: Duration,
    ) -> Result<(TcpStream, SocketAddr), DialError> {
        let deadline = Instant::now() + limit;
        let timed_out = |stage| DialError::TimedOut { target: target.clone(), stage, limit };
        let ways = policy.judge_name(target).map_err(Box::new)?;
        let resolved = timeout_at(deadline, self.addresses(target, policy, ways)).await;
        let allowed = resolved.map_err(|_| timed_out(Stage::Resolving))??;
        let connected = timeout_at(deadline, race(&allowed, connect, telling)).await;
        match connected.map_err(|_| timed_out(Stage::Connecting))? {
            Ok(connected) => Ok(connected),
            Err(Some(error)) => Err(unconnected(target, error)),
            Err(None) => Err(DialError::NameNotFound(target.clone(), io::ErrorKind::NotFound.into())),
        }
    }

    /// The addresses of `target` that the policy lets through.
    async fn addresses(&self, target: &Target, policy: &Policy, ways: Ways) -> Result<Vec<SocketAddr>, DialError> {
        let denied = self.denied(policy, target).await?;
        if let Some(service) = &ways.service {
            let full = service.target();
            // There is no such Service, or no DNS of the cluster: then it is the given name, or nothing.
            if let Ok(resolved) = self.resolver.resolve(&full.host, full.port).await {
                return allowed(resolved, |address| policy.judge_service(service, address, &denied));
            }
        }
        if !ways.given {
            return Err(Box::new(policy.refuse_name(target)).into());
        }
        let resolved = self.resolver.resolve(&target.host, target.port).await;
        let resolved = resolved.map_err(|error| unresolved(target, error))?;
        allowed(resolved, |address| policy.judge_address(target, address, &denied))
    }

    async fn denied(&self, policy: &Policy, target: &Target) -> Result<Vec<DeniedAddress>, DialError> {
        let of_name = policy.denied_names(target.port).map(|(rule, host)| async move {
            let addresses = self.resolver.addresses_of_denied(&host).await;
            let addresses =
                addresses.ok_or_else(|| DialError::DenialUntold { target: target.clone(), denied: host })?;
            let of_rule = addresses.into_iter().map(|address| DeniedAddress { rule: rule.clone(), address });
            Ok::<_, DialError>(of_rule.collect::<Vec<_>>())
        });
        Ok(try_join_all(of_name).await?.concat())
    }
}

impl DialError {
    /// The error as the hub is told, in one sentence.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::new(self.reason(), with_cause(self))
    }

    fn reason(&self) -> Reason {
        match self {
            Self::BadTarget(_) => Reason::BadTarget,
            Self::PolicyDenied(_) | Self::DenialUntold { .. } => Reason::PolicyDenied,
            Self::NameNotFound(..) => Reason::NameNotFound,
            Self::ConnectionRefused(_) | Self::Reset(_) => Reason::ConnectionRefused,
            Self::Unreachable(..) => Reason::Unreachable,
            Self::TimedOut { .. } => Reason::TimedOut,
            Self::TooManyOpenFiles(_) => Reason::Overloaded,
            Self::Other(..) => Reason::Unspecified,
        }
    }

    /// The error as a metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::BadTarget(_) => "bad_target",
            Self::PolicyDenied(_) => "policy_denied",
            Self::DenialUntold { .. } => "denial_untold",
            Self::NameNotFound(..) => "name_not_found",
            Self::ConnectionRefused(_) => "connection_refused",
            Self::Unreachable(..) => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Reset(_) => "reset",
            Self::TooManyOpenFiles(_) => "too_many_open_files",
            Self::Other(..) => "other",
        }
    }
}

impl Stage {
    fn verb(self) -> &'static str {
        match self {
            Self::Resolving => "resolve",
            Self::Connecting => "accept the connection",
        }
    }
}

/// The addresses that the policy lets through; without any, what it says about the first.
fn allowed<'p>(
    resolved: Vec<SocketAddr>,
    judge: impl Fn(IpAddr) -> Result<Grant<'p>, Denial>,
) -> Result<Vec<SocketAddr>, DialError> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in resolved {
        match judge(address.ip()) {
            Ok(grant) => {
                tracing::debug!(%address, rule = %grant, "target allowed");
                allowed.push(address);
            }
            Err(denial) => {
                tracing::debug!(%address, cause = ?denial.cause, "target refused");
                refused.get_or_insert(denial);
            }
        }
    }
    match refused {
        Some(denial) if allowed.is_empty() => Err(DialError::PolicyDenied(Box::new(denial))),
        Some(_) | None => Ok(allowed),
    }
}

async fn connect(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok((stream, address))
}

/// Of several addresses' errors, one that only a listening host can send says more than one of the network.
fn telling(error: &io::Error) -> u8 {
    match errno(error) {
        Some(Errno::EMFILE | Errno::ENFILE) => 4,
        Some(Errno::ECONNREFUSED) => 3,
        Some(Errno::ECONNRESET) => 2,
        Some(Errno::ETIMEDOUT) => 1,
        _ => 0,
    }
}

fn unresolved(target: &Target, error: io::Error) -> DialError {
    match errno(&error) {
        Some(Errno::EMFILE | Errno::ENFILE) => DialError::TooManyOpenFiles(target.clone()),
        _ => DialError::NameNotFound(target.clone(), error),
    }
}

fn unconnected(target: &Target, error: io::Error) -> DialError {
    let target = target.clone();
    match errno(&error) {
        Some(Errno::EMFILE | Errno::ENFILE) => DialError::TooManyOpenFiles(target),
        Some(Errno::ECONNREFUSED) => DialError::ConnectionRefused(target),
        Some(Errno::ECONNRESET | Errno::ECONNABORTED) => DialError::Reset(target),
        // The kernel gives up after two minutes of silence, should the deadline be later.
        Some(Errno::ETIMEDOUT) => DialError::Unreachable(target, error),
        // A firewall's or a route's no comes as EACCES or EPERM.
        Some(
            Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN
            | Errno::EADDRNOTAVAIL
            | Errno::EACCES
            | Errno::EPERM
            | Errno::EINVAL
            | Errno::EAFNOSUPPORT,
        ) => DialError::Unreachable(target, error),
        _ => DialError::Other(target, error),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn policy(allow: &[&str]) -> Policy {
        Policy::new(allow.iter().map(|rule| rule.parse().unwrap()).collect(), Vec::new())
    }

    async fn dial(target: &str, policy: &Policy) -> Result<(TcpStream, SocketAddr), DialError> {
        Dialer::new(Resolver::new()).dial(&target.parse().unwrap(), policy, SOON).await
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_its_allowed_address_dialled() {
        let (listener, port) = listener().await;
        // ::1 is tried first where localhost has it; only 127.0.0.1 is named.
        let (stream, address) = dial(&format!("localhost:{port}"), &policy(&["127.0.0.1"])).await.unwrap();
        assert_eq!(address, listener.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn an_address_of_a_name_may_fail_while_another_answers() {
        let (_listener, port) = listener().await;
        dial(&format!("localhost:{port}"), &policy(&["localhost"])).await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_target_is_never_connected_to() {
        let (listener, port) = listener().await;
        let error = dial(&format!("localhost:{port}"), &policy(&[])).await.unwrap_err();
        assert!(matches!(error, DialError::PolicyDenied(_)), "{error}");
        assert_eq!(error.refusal().reason(), Reason::PolicyDenied);
        assert!(error.refusal().message.contains("--allow"));
        let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(accepted.is_err(), "somebody connected");
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let (listener, port) = listener().await;
        drop(listener);
        let error = dial(&format!("127.0.0.1:{port}"), &policy(&["127.0.0.1"])).await.unwrap_err();
        assert!(matches!(error, DialError::ConnectionRefused(_)), "{error}");
        assert_eq!(error.refusal().message, format!("nothing listens at 127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn no_dial_outlives_its_limit() {
        let error = Dialer::new(Resolver::new())
            .dial(&"localhost:1".parse().unwrap(), &policy(&["localhost"]), Duration::ZERO)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::TimedOut { .. } | DialError::ConnectionRefused(_)), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_connection_is_closed() {
        let (listener, port) = listener().await;
        let (stream, _) = dial(&format!("127.0.0.1:{port}"), &policy(&["127.0.0.1"])).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        drop(stream);
        assert_eq!(
            tokio::time::timeout(SOON, accepted.read_u8()).await.unwrap().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn the_kernels_errors_have_their_own_reasons() {
        let target: Target = "web:80".parse().unwrap();
        for (errno, label) in [
            (Errno::ECONNREFUSED, "connection_refused"),
            (Errno::EHOSTUNREACH, "unreachable"),
            (Errno::ENETUNREACH, "unreachable"),
            (Errno::EACCES, "unreachable"),
            (Errno::EMFILE, "too_many_open_files"),
            (Errno::ENFILE, "too_many_open_files"),
            (Errno::ECONNRESET, "reset"),
            (Errno::EIO, "other"),
        ] {
            let error = unconnected(&target, io::Error::from_raw_os_error(errno as i32));
            assert_eq!(error.label(), label, "{errno}");
        }
        let error = unresolved(&target, io::Error::from_raw_os_error(Errno::EMFILE as i32));
        assert_eq!(error.label(), "too_many_open_files");
        assert_eq!(unresolved(&target, io::Error::other("no such name")).label(), "name_not_found");
    }
}
