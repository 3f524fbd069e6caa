//! A user's credentials as a folder: what the hub's commands and any other client need to be that user.
//!
//! | file | what |
//! |---|---|
//! | `hub.toml` | the user's name, the hub's addresses and its pin |
//! | `ca.crt` | the hub's CA, PEM |
//! | `tls.crt`, `tls.key` | the user's certificate chain and its key, PEM |
//! | `token` | the user's token; may be absent |
//! | `kubeconfig` | the same for kubectl, to administer the hub's registry |
//!
//! The folder is made its owner's alone (0700), and every file is (0600).

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{client_tls::ClientTls, file::write_secret, name::UserName, pin::Pin, server_tls::TlsError};

/// A user's credentials.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub hub: HubEntry,
    pub ca_pem: String,
    pub chain_pem: String,
    pub key_pem: SecretString,
    pub token: Option<SecretString>,
}

/// Where the hub is, and who one is there: `hub.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubEntry {
    pub user: UserName,
    /// The hub's API, `https://host:8443`.
    pub api: String,
    /// The hub's proxy port, `host:8090`.
    pub proxy: String,
    pub pin: Pin,
}

/// Why credentials cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read or write {path}; check that it exists and is yours")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} cannot be understood; make new credentials with 'cluster-proxy user create'")]
    Damaged { path: PathBuf, source: toml::de::Error },
    #[error("hub.toml cannot be written")]
    Write(#[source] toml::ser::Error),
    #[error("{0} holds no PEM; make new credentials with 'cluster-proxy user create'")]
    Pem(&'static str),
    #[error("the credentials cannot be used for TLS")]
    Tls(#[source] TlsError),
}

impl Credentials {
    /// Reads the folder.
    pub fn load(folder: &Path) -> Result<Self, CredentialsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| CredentialsError::File { path, source })
        };
        let damaged = |source| CredentialsError::Damaged { path: folder.join("hub.toml"), source };
        let hub = toml::from_str(&read("hub.toml")?).map_err(damaged)?;
        let token = match read("token") {
            Ok(token) => Some(token.trim()).filter(|token| !token.is_empty()).map(SecretString::from),
            Err(CredentialsError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let key_pem = SecretString::from(read("tls.key")?);
        Ok(Self { hub, ca_pem: read("ca.crt")?, chain_pem: read("tls.crt")?, key_pem, token })
    }

    /// Writes the folder, which is made when it is not there; one that is keeps its mode. Credentials in it are replaced.
    pub fn save(&self, folder: &Path) -> Result<(), CredentialsError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| CredentialsError::File { path: folder.to_owned(), source })?;
        let write = |name: &str, contents: &str| {
            let path = folder.join(name);
            write_secret(&path, contents).map_err(|source| CredentialsError::File { path, source })
        };
        let hub = toml::to_string(&self.hub).map_err(CredentialsError::Write)?;
        write("ca.crt", &self.ca_pem)?;
        write("tls.crt", &self.chain_pem)?;
        write("tls.key", self.key_pem.expose_secret())?;
        match &self.token {
            Some(token) => write("token", token.expose_secret())?,
            None => remove(folder.join("token"))?,
        }
        write("kubeconfig", self.kubeconfig().expose_secret())?;
        // Last: it is what makes the folder a user's, and the rest is there by now.
        write("hub.toml", &hub)
    }

    /// What kubectl needs to administer the hub's registry as this user (Kubernetes' Config v1), whole in itself.
    pub fn kubeconfig(&self) -> SecretString {
        let HubEntry { user, api, .. } = &self.hub;
        let [ca, chain, key] =
            [&self.ca_pem, &self.chain_pem, self.key_pem.expose_secret()].map(|pem| BASE64_STANDARD.encode(pem));
        SecretString::from(format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: hub\n\
             clusters:\n\
             - name: hub\n  cluster:\n    server: {api}\n    certificate-authority-data: {ca}\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate-data: {chain}\n    client-key-data: {key}\n\
             contexts:\n\
             - name: hub\n  context:\n    cluster: hub\n    user: {user}\n"
        ))
    }

    /// The client's side of TLS with these credentials.
    pub fn tls(&self) -> Result<ClientTls, CredentialsError> {
        let certificates = |pem: &str, name| {
            let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            parsed.ok().filter(|chain| !chain.is_empty()).ok_or(CredentialsError::Pem(name))
        };
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.expose_secret().as_bytes())
            .map_err(|_| CredentialsError::Pem("tls.key"))?;
        let chain = certificates(&self.chain_pem, "tls.crt")?;
        ClientTls::new(certificates(&self.ca_pem, "ca.crt")?, Some((chain, key))).map_err(CredentialsError::Tls)
    }
}

fn remove(path: PathBuf) -> Result<(), CredentialsError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CredentialsError::File { path, source }),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;
    use crate::{Authority, Identity, PrivateKey, ServerTls, handshake::Handshake};

    fn credentials() -> Credentials {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let key = PrivateKey::generate();
        let user: UserName = "alice".parse().unwrap();
        let issued = authority.issue_user(&key.csr_der().unwrap(), &user, None, Duration::from_secs(3600)).unwrap();
        let hub = HubEntry { user, api: "https://hub:8443".into(), proxy: "hub:8090".into(), pin: authority.pin() };
        Credentials {
            hub,
            ca_pem: authority.certificate_pem().into(),
            chain_pem: issued.chain_pem,
            key_pem: key.to_pem().into(),
            token: Some("cpu-x.secret".into()),
        }
    }

    #[test]
    fn credentials_are_read_back_and_are_their_owners() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("alice");
        let saved = credentials();
        saved.save(&folder).unwrap();
        let loaded = Credentials::load(&folder).unwrap();
        assert_eq!(loaded.hub, saved.hub);
        assert_eq!(loaded.token.as_ref().unwrap().expose_secret(), "cpu-x.secret");
        loaded.tls().unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for file in fs::read_dir(&folder).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let shown = format!("{loaded:?}");
        assert!(!shown.contains("secret") && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn a_folder_without_a_token_is_complete_and_one_without_a_key_is_not() {
        let folder = tempfile::tempdir().unwrap();
        Credentials { token: None, ..credentials() }.save(folder.path()).unwrap();
        assert!(Credentials::load(folder.path()).unwrap().token.is_none());
        fs::remove_file(folder.path().join("tls.key")).unwrap();
        let error = Credentials::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("tls.key"), "{error}");
    }

    #[test]
    fn an_old_token_does_not_stay_and_an_empty_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        credentials().save(folder.path()).unwrap();
        Credentials { token: None, ..credentials() }.save(folder.path()).unwrap();
        assert!(Credentials::load(folder.path()).unwrap().token.is_none());
        fs::write(folder.path().join("token"), "\n").unwrap();
        assert!(Credentials::load(folder.path()).unwrap().token.is_none());
        fs::write(folder.path().join("token"), "cpu-2.edited\n").unwrap();
        assert_eq!(Credentials::load(folder.path()).unwrap().token.unwrap().expose_secret(), "cpu-2.edited");
    }

    #[test]
    fn hub_toml_is_what_people_are_told_to_expect() {
        let folder = tempfile::tempdir().unwrap();
        let saved = credentials();
        saved.save(folder.path()).unwrap();
        let expected = format!(
            "user = \"alice\"\napi = \"https://hub:8443\"\nproxy = \"hub:8090\"\npin = \"{}\"\n",
            saved.hub.pin
        );
        assert_eq!(fs::read_to_string(folder.path().join("hub.toml")).unwrap(), expected);
    }

    #[test]
    fn what_is_broken_is_named() {
        for (name, contents) in
            [("hub.toml", "garbage"), ("hub.toml", "user = \"a\""), ("ca.crt", ""), ("tls.crt", "x"), ("tls.key", "x")]
        {
            let folder = tempfile::tempdir().unwrap();
            credentials().save(folder.path()).unwrap();
            fs::write(folder.path().join(name), contents).unwrap();
            let error = Credentials::load(folder.path()).and_then(|loaded| loaded.tls()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_hub_knows_the_user_by_them() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let server = authority.issue_server(&[], Duration::from_secs(60)).unwrap();
        let server = ServerTls::new(server, &[authority.certificate().clone()]).unwrap().config(&[]);
        let key = PrivateKey::generate();
        let user: UserName = "alice".parse().unwrap();
        let csr = key.csr_der().unwrap();
        let mine = Credentials {
            ca_pem: authority.certificate_pem().into(),
            chain_pem: authority.issue_user(&csr, &user, None, Duration::from_secs(60)).unwrap().chain_pem,
            key_pem: key.to_pem().into(),
            ..credentials()
        };
        let handshake = Handshake::run(&mine.tls().unwrap().config(&[]).unwrap(), &server);
        let leaf = &handshake.server.peer_certificates().unwrap()[0];
        assert_eq!(Identity::from_certificate(leaf).unwrap(), Identity::User { user, groups: vec![], uid: None });
    }
}
