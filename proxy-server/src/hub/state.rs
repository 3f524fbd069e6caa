//! The hub's state folder: its CA, its registry, its reset key, its tunnels and the first administrator's credentials.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key`, `ca.retired.crt` | the CA; losing the key means that every agent joins again |
//! | `registry.redb` | clusters, tokens, users; not there when etcd keeps them |
//! | `begin-empty` | made by who wants it: an empty registry beside a CA is no loss, once |
//! | `in-use` | keeps other hubs out of the folder when it has no `registry.redb` |
//! | `reset.key` | lets a restarted hub tell old tunnels that they are gone |
//! | `tunnels` | which tunnels were up, so that a hub that starts after a crash resets them ([`crate::agents::reset_hints`]) |
//! | `successor`, `former`, `closing`, `feed`, `ports` | what a hub and the one after it tell each other ([`crate::hub::succession`], [`crate::hub::feed`], [`crate::hub::layout`]) |
//! | `admin/` | credentials of the user `admin`, for this machine's `cluster-proxy` |

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use certs::{Authority, AuthorityError, Credentials, CredentialsError, HubEntry, IssueError, PrivateKey, UserName};
use jiff::Timestamp;
use registry::{
    ClusterScope, MAX_USER_VALIDITY, NewUser, NewUserError, Registry, Role, User, UserError, kube::rbac::MASTERS,
    new_uid,
};
use secrecy::SecretString;
use store::{Backend, CommitError, Etcd, OpenError};
use tunnel::RESET_KEY_LENGTH;

/// The first administrator.
const ADMIN: &str = "admin";

/// What only the hub's own user may read, in its folder.
const SECRETS: [&str; 7] =
    ["ca.key", "registry.redb", "reset.key", "tunnels", "admin/token", "admin/tls.key", "admin/kubeconfig"];

/// The administrator's certificate is made anew at each start, and its token at the first start in the half of its life.
const ADMIN_VALIDITY: Duration = MAX_USER_VALIDITY;

/// How the administrator's tokens that hubs have made are named, and how many of them there are at most.
const HUB_TOKEN: &str = "hub-";
const HUB_TOKENS: usize = 8;

/// What the folder holds, open.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) folder: PathBuf,
    pub(crate) authority: Authority,
    pub(crate) registry: Registry,
    pub(crate) reset_key: [u8; RESET_KEY_LENGTH],
    /// Keeps other hubs out of the folder for as long as it is open, when the registry is not in there.
    pub(crate) folder_lock: Option<File>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot use {path}; check its permissions, or name another folder with --state")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is in use by another hub; stop that one, or name another folder with --state")]
    InUse(PathBuf),
    #[error("{0} is damaged; delete it (agents then take a moment longer to reconnect, once)")]
    ResetKey(PathBuf),
    #[error(
        "{registry} is missing beside {ca}: restore a copy of it ('cluster-proxy restore BACKUP --state {folder}'); an empty registry \
         would know no agent and no user, and all would have to join again (to begin with one all the same: touch {mark})"
    )]
    RegistryMissing { registry: PathBuf, ca: PathBuf, mark: PathBuf, folder: PathBuf },
    #[error(
        "{folder} holds no CA, and {registry} holds what a hub has registered: restore a copy of the CA ('cluster-proxy restore BACKUP \
         --state {folder}', or ca.crt and ca.key of another hub of this registry); no agent and no user would know a hub with a new CA \
         (to begin with nothing: name another folder with --state, and with etcd another --etcd-prefix)"
    )]
    AuthorityMissing { folder: PathBuf, registry: String },
    #[error(
        "etcd holds no registry for the hub whose CA is {ca}: check --etcd-endpoint and --etcd-prefix, or restore etcd's snapshot; \
         an empty registry would know no agent and no user, and all would have to join again (to begin with one all the same: \
         touch {mark})"
    )]
    EtcdEmpty { ca: PathBuf, mark: PathBuf },
    #[error("the hub's CA cannot be used")]
    Authority(#[source] AuthorityError),
    #[error("the registry cannot be opened")]
    Registry(#[source] OpenError),
    #[error("the registry cannot be filled with what every hub has")]
    Begin(#[source] CommitError),
    #[error("the administrator's credentials cannot be written")]
    Credentials(#[source] CredentialsError),
    #[error("the administrator's certificate cannot be issued")]
    Issue(#[source] IssueError),
    #[error("the administrator cannot be registered")]
    Create(#[source] NewUserError),
    #[error("the administrator cannot be registered anew")]
    Replace(#[source] UserError),
    #[error("the administrator's key cannot be used; move it away to have a new one made")]
    Key(#[source] certs::PrivateKeyError),
    #[error("the administrator's key signs nothing")]
    Csr(#[source] certs::CsrError),
}

impl State {
    /// Opens the folder, and makes in it what is missing.
    pub(crate) fn open(folder: &Path, etcd: Option<&Etcd>) -> Result<Self, StateError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| StateError::File { path: folder.to_owned(), source })?;
        guard(folder)?;
        // First: it also makes sure that no other hub uses the folder.
        let (backend, folder_lock) = match etcd {
            None => (Backend::File(folder.join("registry.redb")), None),
            Some(etcd) => (Backend::Etcd(etcd.clone()), Some(lock(folder)?)),
        };
        let mark = folder.join("begin-empty");
        // A CA without a registry: this folder's agents and users are known nowhere.
        let authority = ["ca.crt", "ca.key"].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
        let ca = authority.clone().filter(|_| !mark.exists());
        if let (Backend::File(path), Some(ca)) = (&backend, &ca)
            && !path.exists()
        {
            let (registry, ca, folder) = (path.clone(), ca.clone(), folder.to_owned());
            return Err(StateError::RegistryMissing { registry, ca, mark, folder });
        }
        let registry = Registry::on(&backend).map_err(StateError::Registry)?;
        if let (Backend::Etcd(_), Some(ca)) = (&backend, ca)
            && registry.is_new()
        {
            return Err(StateError::EtcdEmpty { ca, mark });
        }
        if authority.is_none() && !registry.is_new() {
            let registry = match &backend {
                Backend::File(path) => path.display().to_string(),
                Backend::Etcd(_) => "etcd".to_owned(),
            };
            return Err(StateError::AuthorityMissing { folder: folder.to_owned(), registry });
        }
        // For this start only.
        let _ = fs::remove_file(&mark);
        let authority = Authority::load_or_create(folder).map_err(StateError::Authority)?;
        let reset_key = reset_key(&folder.join("reset.key"))?;
        Ok(Self { folder: folder.to_owned(), authority, registry, reset_key, folder_lock })
    }

    /// Makes what every registry has, where it is missing.
    pub(crate) async fn bootstrap(&self) -> Result<(), StateError> {
        self.registry.bootstrap(Timestamp::now()).await.map_err(StateError::Begin)
    }

    /// Writes the administrator's credentials for a hub at these addresses. A user or a token that is there is kept.
    pub(crate) async fn write_admin(&self, api: String, proxy: String) -> Result<PathBuf, StateError> {
        let folder = self.folder.join(ADMIN);
        let user: UserName = ADMIN.parse().expect("the name is a user's");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| StateError::File { path: folder.clone(), source })?;
        let token = self.admin_token(&user, &folder.join("token")).await?;
        let hub = HubEntry { user, api, proxy, pin: self.authority.pin() };
        let credentials = admin_credentials(&folder, &self.authority, &self.registry, hub, Some(token))?;
        match credentials.save(&folder) {
            // Those of the last start are as good until they end, and the hub serves on a disk that is full.
            Err(error) if Credentials::load(&folder).is_ok() => {
                let (path, error) = (folder.display(), &error as &dyn std::error::Error);
                tracing::warn!(%path, error, "cannot write the administrator's credentials anew; those there stay");
            }
            saved => saved.map_err(StateError::Credentials)?,
        }
        Ok(folder)
    }

    /// The token in the file while it is good for long enough; else a further one, beside which those of copies of the folder
    /// stay as good as they are. Whoever may write this folder is the administrator anyway.
    async fn admin_token(&self, user: &UserName, path: &Path) -> Result<SecretString, StateError> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let text = text.trim();
        // Also a registry from before there were roles makes its administrator anew.
        let is_admin = |known: &User| known.name == *user && known.groups.iter().any(|group| group == MASTERS);
        let end = |at: Timestamp| {
            let login = self.registry.authenticate(text, at).ok().filter(|login| is_admin(login))?;
            Some(login.token_end())
        };
        let now = Timestamp::now();
        // Soon enough before its end, whenever the next start is. One without an end is of an old registry.
        if let Some(Some(_)) = end(now + ADMIN_VALIDITY / 2) {
            return Ok(SecretString::from(text));
        }
        let renewed = match self.registry.user(user) {
            Some(known) if is_admin(&known) => self.further_token(user, now).await,
            known => self.make_admin(user, known.is_some(), now).await,
        };
        match (renewed, end(now)) {
            (Ok(token), _) => {
                tracing::info!(%user, "the administrator of this folder has a new token");
                Ok(token)
            }
            // The disk may be full.
            (Err(error), Some(_)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%user, error, "the administrator has no new token yet; the one that is there goes on");
                Ok(SecretString::from(text))
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn further_token(&self, user: &UserName, now: Timestamp) -> Result<SecretString, StateError> {
        let name = format!("{HUB_TOKEN}{:08x}", rand::random::<u32>());
        let known = self.registry.user(user);
        let tokens = known.iter().flat_map(|known| &known.tokens);
        // Those without an end are of an old registry, and as good as lost; of a hub's own there are a few.
        let own = tokens.clone().filter(|token| token.name.starts_with(HUB_TOKEN)).count();
        let first = tokens.clone().find(|token| token.name.starts_with(HUB_TOKEN)).filter(|_| own >= HUB_TOKENS);
        let spent: Vec<_> =
            tokens.filter(|token| token.expires_at.is_none()).chain(first).map(|token| token.id.clone()).collect();
        for token in spent {
            self.registry.delete_user_token(user, &token).await.map_err(StateError::Replace)?;
        }
        let made = self.registry.create_user_token(user, &name, ADMIN_VALIDITY, now).await;
        made.map(|(_, text)| text).map_err(StateError::Replace)
    }

    async fn make_admin(&self, user: &UserName, exists: bool, now: Timestamp) -> Result<SecretString, StateError> {
        if exists {
            tracing::warn!(%user, "the user was no administrator, and is made anew as one");
            self.registry.delete_user(user).await.map_err(StateError::Replace)?;
        }
        let groups = vec![MASTERS.to_owned()];
        let (uid, validity) = (new_uid(), ADMIN_VALIDITY);
        let new = NewUser { name: user.clone(), role: Role::Admin, groups, clusters: ClusterScope::All, uid, validity };
        let (_, token) = self.registry.create_user(new, now).await.map_err(StateError::Create)?;
        Ok(token)
    }
}

/// Has the administrator's credentials follow the CA: its roots, and a certificate of the one that signs.
pub(crate) fn renew_admin(folder: &Path, authority: &Authority, registry: &Registry) -> Result<(), StateError> {
    let folder = folder.join(ADMIN);
    let Credentials { hub, token, .. } = Credentials::load(&folder).map_err(StateError::Credentials)?;
    let hub = HubEntry { pin: authority.pin(), ..hub };
    let renewed = admin_credentials(&folder, authority, registry, hub, token)?;
    renewed.save(&folder).map_err(StateError::Credentials)
}

fn admin_credentials(
    folder: &Path,
    authority: &Authority,
    registry: &Registry,
    hub: HubEntry,
    token: Option<SecretString>,
) -> Result<Credentials, StateError> {
    let key = PrivateKey::load_or_create(&folder.join("tls.key")).map_err(StateError::Key)?;
    let csr = key.csr_der().map_err(StateError::Csr)?;
    let uid = registry.user(&hub.user).and_then(|known| known.uid.clone());
    let issued = authority.issue_user(&csr, &hub.user, uid.as_deref(), ADMIN_VALIDITY).map_err(StateError::Issue)?;
    Ok(Credentials {
        hub,
        ca_pem: authority.roots_pem(),
        chain_pem: issued.chain_pem,
        key_pem: key.to_pem().into(),
        token,
    })
}

/// Takes what is secret in the folder from everybody but its owner: a backup may have come back open to all.
fn guard(folder: &Path) -> Result<(), StateError> {
    for path in [folder.to_owned(), folder.join(ADMIN)] {
        match certs::guard_folder(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(StateError::File { path, source }),
            Ok(()) | Err(_) => {}
        }
    }
    for name in SECRETS {
        let path = folder.join(name);
        match certs::guard_secret(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(StateError::File { path, source }),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Makes sure that no other hub uses the folder.
fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join("in-use");
    let opened = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| StateError::File { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(StateError::File { path, source }),
    }
}

fn reset_key(path: &Path) -> Result<[u8; RESET_KEY_LENGTH], StateError> {
    let file = |source| StateError::File { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| StateError::ResetKey(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = rand::random::<[u8; RESET_KEY_LENGTH]>();
            certs::write_secret(path, key).map_err(file)?;
            Ok(key)
        }
        Err(error) => Err(file(error)),
    }
}
