//! Who asks: the user that a certificate, a token or a Unix socket's permissions stand for.

use std::{fmt, sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use certs::{ClusterName, Identity, Pin, UserName, issued_at};
use jiff::Timestamp;
use registry::{Login, Registry, TokenRefusal, User};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use crate::{authorities::Authorities, limits::lobby::Guest, outcome::Outcome};

/// An authenticated client.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A registered user, with what it has shown.
    User(Login),
    /// A process that may open the hub's Unix socket: the hub's own machine trusts it with every cluster.
    Socket { uid: u32 },
}

/// What a client has shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct PresentedCredentials {
    /// The leaf of its TLS certificate, verified under the hub's CA.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// The user id behind its Unix socket.
    pub(crate) uid: Option<u32>,
    /// The cluster that the listener means: its TLS server name's, or its Unix socket's.
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) credentials: Credentials,
    /// Its place among those who are nobody yet; those behind a Unix socket never are.
    pub(crate) guest: Option<Arc<Guest>>,
}

/// What a client said in its request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// The proxy user name, if not empty.
    pub(crate) name: Option<String>,
    pub(crate) token: Option<SecretString>,
}

/// Why a client is nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallerError {
    #[error(
        "credentials are required: a user token as the proxy password or as Bearer, or a user certificate over TLS; \
         an administrator makes them with 'cluster-proxy user create NAME --cluster CLUSTER'"
    )]
    Missing,
    #[error(
        "the token is not known here; ask an administrator for a new one ('cluster-proxy user token create USER --name NAME')"
    )]
    UnknownToken,
    #[error(
        "the token ended at {at}; an administrator makes another: 'cluster-proxy user token create {user} --name NAME'"
    )]
    ExpiredToken { user: UserName, at: Timestamp },
    #[error("the credentials cannot be read; send 'Basic' with CLUSTER:TOKEN, or 'Bearer' with the token")]
    Malformed,
    #[error("user {0} is not registered here any more; ask an administrator for new credentials")]
    UnknownUser(String),
    #[error("an agent's certificate opens tunnels only; use a user's certificate or token here")]
    Agent,
    #[error("the certificate is no user's: {0}")]
    NoUser(String),
    #[error(
        "the certificate was issued by a CA that this hub has given up; ask an administrator for a new one ('cluster-proxy \
         user renew NAME')"
    )]
    CaIsOver,
    #[error("too many wrong tokens came from this address; correct the token, and try again in a second")]
    Throttled,
    #[error(
        "the user has {0} connections to this port, as many as one may have; close some, or send more requests on each"
    )]
    Crowded(usize),
}

impl PresentedCredentials {
    /// With what the request's `Proxy-Authorization` or `Authorization` says, if it has one.
    pub(crate) fn with_authorization(self, value: Option<&[u8]>) -> Result<Self, CallerError> {
        let credentials = value.map_or(Ok(Credentials::default()), Credentials::parse)?;
        Ok(Self { credentials, ..self })
    }
}

impl CallerError {
    /// What metrics and audit events call it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Missing => Outcome::NoCredentials,
            Self::UnknownToken => Outcome::UnknownUserToken,
            Self::ExpiredToken { .. } => Outcome::ExpiredUserToken,
            Self::Malformed => Outcome::MalformedCredentials,
            Self::UnknownUser(_) => Outcome::UnknownUser,
            Self::Agent => Outcome::AgentCertificate,
            Self::NoUser(_) => Outcome::NoUserCertificate,
            Self::CaIsOver => Outcome::CaIsOver,
            Self::Throttled => Outcome::Throttled,
            Self::Crowded(_) => Outcome::UserConnections,
        }
    }
}

impl Credentials {
    /// Reads a `Proxy-Authorization` or `Authorization` value: `Basic` (RFC 7617) with the token as password, or
    /// `Bearer` (RFC 6750).
    pub(crate) fn parse(value: &[u8]) -> Result<Self, CallerError> {
        let value = std::str::from_utf8(value).map_err(|_| CallerError::Malformed)?;
        let (scheme, rest) = value.trim().split_once(' ').ok_or(CallerError::Malformed)?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self { name: None, token: some_secret(rest) });
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(CallerError::Malformed);
        }
        let decoded = BASE64_STANDARD.decode(rest).map_err(|_| CallerError::Malformed)?;
        let decoded = String::from_utf8(decoded).map_err(|_| CallerError::Malformed)?;
        let (name, token) = decoded.split_once(':').ok_or(CallerError::Malformed)?;
        Ok(Self::of(name, token))
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(ExposeSecret::expose_secret)
    }

    /// A user name and a password, either of which may be empty.
    pub(crate) fn of(name: &str, token: &str) -> Self {
        Self { name: (!name.is_empty()).then(|| name.to_owned()), token: some_secret(token) }
    }
}

fn some_secret(token: &str) -> Option<SecretString> {
    (!token.is_empty()).then(|| SecretString::from(token))
}

impl Caller {
    /// Who has shown this. A token speaks louder than a certificate, and that louder than the socket's permissions: it
    /// is what the client said last. A token that is wrong is never passed over.
    ///
    /// The one place where a connection becomes a user's, and where wrong tokens are noticed.
    pub(crate) fn authenticate(
        presented: &PresentedCredentials,
        registry: &Registry,
        authorities: &Authorities,
    ) -> Result<Self, CallerError> {
        let caller = match (Self::identify(presented, registry, authorities), &presented.guest) {
            (Err(CallerError::UnknownToken), Some(guest)) if guest.mistaken().is_err() => {
                return Err(CallerError::Throttled);
            }
            (identified, _) => identified?,
        };
        match (&presented.guest, &caller) {
            (Some(guest), Self::User(user)) if !guest.is_of(user.name.as_ref()) => {
                Err(CallerError::Crowded(guest.most()))
            }
            (Some(_) | None, Self::User(_) | Self::Socket { .. }) => Ok(caller),
        }
    }

    fn identify(
        presented: &PresentedCredentials,
        registry: &Registry,
        authorities: &Authorities,
    ) -> Result<Self, CallerError> {
        if let Some(certificate) = &presented.certificate {
            let user = Self::of_certificate(certificate, registry, authorities)?;
            if presented.credentials.token.is_none() {
                return Ok(Self::User(user));
            }
        }
        if let Some(token) = &presented.credentials.token {
            return Ok(Self::User(registry.authenticate(token.expose_secret(), Timestamp::now())?));
        }
        presented.uid.map(|uid| Self::Socket { uid }).ok_or(CallerError::Missing)
    }

    fn of_certificate(
        certificate: &CertificateDer<'_>,
        registry: &Registry,
        authorities: &Authorities,
    ) -> Result<Login, CallerError> {
        // TLS has verified it when the connection was made, which may be long ago.
        let issuer = authorities.current().issuer_of(certificate).ok_or(CallerError::CaIsOver)?;
        match Identity::from_certificate(certificate) {
            Ok(Identity::User { user, uid, .. }) => {
                let known = registry.user(&user).filter(|known| issued_to(known, uid.as_deref(), certificate));
                let known = known.ok_or_else(|| CallerError::UnknownUser(user.to_string()))?;
                authorities.saw(&user, issuer);
                Ok(Login::by_certificate(known, issuer))
            }
            Ok(Identity::Agent { .. }) => Err(CallerError::Agent),
            Err(error) => Err(CallerError::NoUser(error.to_string())),
        }
    }

    /// The user's name in decisions and limits.
    pub(crate) fn name(&self) -> String {
        self.to_string()
    }

    /// Whether what was shown has ended since.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        matches!(self, Self::User(login) if login.token_end().is_some_and(|end| now >= end))
    }

    /// The CA of the certificate that was shown, if that is what was.
    pub(crate) fn issuer(&self) -> Option<Pin> {
        match self {
            Self::User(login) => login.issuer(),
            Self::Socket { .. } => None,
        }
    }

    /// Whether this is the registered user `name`.
    pub(crate) fn is_user(&self, name: &UserName) -> bool {
        matches!(self, Self::User(user) if user.name == *name)
    }

    /// The cluster that a proxy user name names: none, when it is the caller's own name.
    pub(crate) fn cluster_named<'a>(&self, proxy_user: Option<&'a str>) -> Option<&'a str> {
        proxy_user.filter(|name| match self {
            Self::User(user) => user.name.as_ref() != *name,
            Self::Socket { .. } => true,
        })
    }
}

/// Whether a certificate with the user's name is not of an earlier user of that name, who was deleted.
///
/// Users that were registered before there were uids have none, and the time of their certificates tells; whoever took such
/// a name since has one.
fn issued_to(user: &User, uid: Option<&str>, certificate: &CertificateDer<'_>) -> bool {
    let since = |issued: SystemTime| issued >= SystemTime::from(user.created_at);
    user.uid.as_deref() == uid && (uid.is_some() || issued_at(certificate).is_some_and(since))
}

impl From<TokenRefusal> for CallerError {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::Unknown => Self::UnknownToken,
            TokenRefusal::Expired { user, at } => Self::ExpiredToken { user, at },
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "{}", user.name),
            Self::Socket { uid } => write!(f, "uid:{uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Result<(Option<String>, Option<String>), CallerError> {
        Credentials::parse(value.as_bytes())
            .map(|credentials| (credentials.name, credentials.token.map(|token| token.expose_secret().to_owned())))
    }

    #[test]
    fn basic_names_a_cluster_and_bearer_does_not() {
        let some = |text: &str| Some(text.to_owned());
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert_eq!(parsed(&basic("c1:tok")), Ok((some("c1"), some("tok"))));
        assert_eq!(parsed(&basic(":tok")), Ok((None, some("tok"))));
        assert_eq!(parsed(&basic("c1:")), Ok((some("c1"), None)));
        assert_eq!(parsed(&basic("c1:a:b")), Ok((some("c1"), some("a:b"))));
        assert_eq!(parsed("bEARER  tok "), Ok((None, some("tok"))));
    }

    #[test]
    fn what_cannot_be_read_is_malformed_and_no_panic() {
        for value in ["", "Basic", "Basic !!!", "Basic YWJj", "Digest x=y", "Negotiate abc", "Basic /w=="] {
            assert_eq!(parsed(value), Err(CallerError::Malformed), "{value:?}");
        }
        assert_eq!(Credentials::parse(&[0xff, b' ', 1]).unwrap_err(), CallerError::Malformed);
    }
}
