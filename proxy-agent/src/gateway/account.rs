//! The agent's service account in its cluster: the token, read again before Kubernetes' rotation makes it old.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use http::HeaderValue;
use tokio::sync::Mutex;

/// How long a token is used before its file is read again; client-go's is a minute, too
/// (k8s.io/client-go/transport/token_source.go). Kubernetes replaces tokens when a fifth of their life is left.
const FRESH: Duration = Duration::from_secs(60);

/// The account's token and its file.
#[derive(Debug)]
pub(super) struct Account {
    path: PathBuf,
    read: Mutex<Option<(Instant, HeaderValue)>>,
}

/// Why the agent has no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(
        "the agent has no service-account token at {}; run it in the cluster, or name a file with --kube-token",
        path.display()
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds no token; check --kube-token", path.display())]
    NoToken { path: PathBuf },
}

impl Account {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// The value of `Authorization`; never shown in a log.
    pub(super) async fn bearer(&self) -> Result<HeaderValue, AccountError> {
        let mut read = self.read.lock().await;
        if let Some((_, bearer)) = read.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(bearer.clone());
        }
        let bearer = match tokio::fs::read_to_string(&self.path).await {
            Ok(token) => self.header(&token)?,
            // A file that is being replaced may be missing for a moment; the old token is still good.
            Err(source) => match read.as_ref() {
                Some((_, bearer)) => return Ok(bearer.clone()),
                None => return Err(AccountError::Unreadable { path: self.path.clone(), source }),
            },
        };
        *read = Some((Instant::now(), bearer.clone()));
        Ok(bearer)
    }

    fn header(&self, token: &str) -> Result<HeaderValue, AccountError> {
        let token = token.trim();
        let value = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
        let mut value = value.ok_or_else(|| AccountError::NoToken { path: self.path.clone() })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_read_from_its_file_and_kept_when_that_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let account = Account::new(path.clone());
        let missing = account.bearer().await.unwrap_err().to_string();
        assert!(missing.contains("--kube-token") && missing.contains("token"), "{missing}");
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(account.bearer().await, Err(AccountError::NoToken { .. })));
        std::fs::write(&path, "abc\n").unwrap();
        let bearer = account.bearer().await.unwrap();
        assert_eq!(bearer, "Bearer abc");
        assert!(bearer.is_sensitive());
        std::fs::remove_file(&path).unwrap();
        *account.read.lock().await = Instant::now().checked_sub(FRESH).map(|old| (old, bearer));
        assert_eq!(account.bearer().await.unwrap(), "Bearer abc");
    }
}
