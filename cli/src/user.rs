//! `user`: who may use the proxy, and their credentials.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use certs::{ClusterName, Credentials, CredentialsError, CsrError, GroupName, HubEntry, PrivateKey, UserName};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use registry::{
    ClusterScope,
    api::{CredentialIssued, HubStatus, NewCredential, NewUser, TokenList, TokenView, UserCreated, UserList, UserView},
};

use crate::{
    api::{Api, CallError},
    credentials::Located,
    duration,
    failure::{Exit, Failure},
    output::{note, print, print_json},
    quantity,
    table::Table,
    user_token::UserTokenCommand,
};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user, and a folder with its credentials
    Create(Create),
    /// List the users
    List(List),
    /// Give a user a new certificate, in its folder of credentials
    Renew(Renew),
    /// Make, list and delete the tokens of a user
    #[command(subcommand)]
    Token(UserTokenCommand),
    /// Delete users: their connections are cut
    Delete(Delete),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy user create prometheus --all-clusters\n  \
    cluster-proxy user create alice --cluster edge-1 --cluster edge-2 --out ~/.config/cluster-proxy")]
pub(crate) struct Create {
    #[arg(value_name = "NAME")]
    name: UserName,
    #[command(flatten)]
    reach: ReachArgs,
    /// A group of the user; may be given several times
    #[arg(long, short, value_name = "GROUP")]
    group: Vec<GroupName>,
    /// Folder to make for the credentials [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long certificate and token are good for: a year at most
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration::parse)]
    validity: Duration,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    cluster-proxy user renew alice --out ./alice\n\n\
    Key and certificate in the folder are replaced; a token there stays, and 'cluster-proxy user token' makes others.")]
pub(crate) struct Renew {
    #[arg(value_name = "NAME")]
    name: UserName,
    /// The folder of its credentials, as 'user create' has made it [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long the certificate is good for: a year at most
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration::parse)]
    validity: Duration,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ReachArgs {
    /// A cluster that the user may reach; may be given several times
    #[arg(long, short, value_name = "NAME")]
    cluster: Vec<ClusterName>,
    /// The user may reach every cluster, also those that join later
    #[arg(long)]
    all_clusters: bool,
    /// The user may reach every cluster and administer the hub
    #[arg(long)]
    admin: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy user list")]
pub(crate) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy user delete alice")]
pub(crate) struct Delete {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<UserName>,
}

/// A user to be made.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) name: UserName,
    pub(crate) admin: bool,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) clusters: ClusterScope,
    /// Of the certificate.
    pub(crate) validity: Duration,
}

/// Why no credentials were written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("{} exists already and is not overwritten; name another folder with --out DIR", .0.display())]
    Exists(PathBuf),
    #[error("cannot make the folder {}; name another with --out DIR", .folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    Call(CallError),
    #[error("the key cannot be used")]
    Key(#[source] CsrError),
    #[error("the hub's status names no pin of a hub")]
    Pin(#[source] certs::FingerprintError),
    #[error(
        "user {user} is made, but its credentials are not written; 'cluster-proxy user delete {user}' and try again"
    )]
    Save { user: UserName, source: Box<CredentialsError> },
}

impl UserCommand {
    pub(crate) async fn run(&self, located: &Located) -> Result<(), Failure> {
        let (api, credentials) = (Api::of(located)?, &located.credentials);
        match self {
            Self::Create(create) => create.run(&api, credentials).await,
            Self::List(list) => list.run(&api).await,
            Self::Renew(renew) => renew.run(&api, credentials).await,
            Self::Token(token) => token.run(&api).await,
            Self::Delete(delete) => delete.run(&api).await,
        }
    }
}

impl Create {
    /// When the credentials end, by this machine's clock.
    fn end(&self) -> String {
        let end = Timestamp::now().checked_add(self.validity).map(|end| end.strftime("%Y-%m-%d").to_string());
        end.unwrap_or_default()
    }

    async fn run(&self, api: &Api, own: &Credentials) -> Result<(), Failure> {
        let folder = self.out.clone().unwrap_or_else(|| Path::new(".").join(self.name.as_ref()));
        let new = New {
            name: self.name.clone(),
            admin: self.reach.admin,
            groups: self.group.clone(),
            clusters: self.reach.reach(),
            validity: self.validity,
        };
        create(api, own, new, &folder).await?;
        note(format!(
            "They are good until {}; 'cluster-proxy user renew {}' renews the certificate.",
            self.end(),
            self.name
        ));
        note(format!("credentials of user {} written; use them with --credentials DIR or", self.name));
        note(format!("  export CLUSTER_PROXY_CREDENTIALS={}", folder.display()));
        print(folder.display())
    }
}

impl Renew {
    async fn run(&self, api: &Api, own: &Credentials) -> Result<(), Failure> {
        let folder = self.out.clone().unwrap_or_else(|| Path::new(".").join(self.name.as_ref()));
        let load = |folder: &Path| Credentials::load(folder).map_err(|source| Failure::new(Exit::Other, source));
        let mut credentials = load(&folder)?;
        if credentials.hub.user != self.name {
            let failure =
                Failure::new(Exit::Usage, format!("{} is of user {}", folder.display(), credentials.hub.user));
            return Err(failure.next("name the folder of its credentials with --out DIR"));
        }
        let key = PrivateKey::generate();
        let csr = key.csr_der().map_err(CreateError::Key)?;
        let asked = NewCredential { csr, validity_seconds: self.validity.as_secs() };
        let issued: CredentialIssued = api.post(&format!("/v1/users/{}/certificate", self.name), &asked).await?;
        credentials.ca_pem = own.ca_pem.clone();
        credentials.chain_pem = issued.certificate_chain_pem;
        credentials.key_pem = key.to_pem().into();
        credentials.save(&folder).map_err(|source| Failure::new(Exit::Other, source))?;
        note(format!("the certificate is good until {}", issued.not_after));
        print(folder.display())
    }
}

/// Makes a user, and a new folder with its credentials. The key is made here and stays here.
///
/// On an error there is no folder, and no user either, but after [`CreateError::Save`].
pub(crate) async fn create(api: &Api, own: &Credentials, new: New, folder: &Path) -> Result<Credentials, CreateError> {
    // Before the hub is asked: a folder that cannot be made must leave no user behind.
    make_folder(folder)?;
    let created = create_into(api, own, new, folder).await;
    if created.is_err() {
        // Only an empty folder is removed; one that cannot be removed is no second failure.
        let _ = fs::remove_dir(folder);
    }
    created
}

async fn create_into(api: &Api, own: &Credentials, new: New, folder: &Path) -> Result<Credentials, CreateError> {
    let status: HubStatus = api.get("/v1/status").await.map_err(CreateError::Call)?;
    let pin = status.pin.parse().map_err(CreateError::Pin)?;
    let key = PrivateKey::generate();
    let New { name: user, admin, groups, clusters, validity } = new;
    let csr = key.csr_der().map_err(CreateError::Key)?;
    let validity_seconds = validity.as_secs();
    let asked = NewUser { name: user.clone(), admin, groups, clusters, csr, validity_seconds };
    let created: UserCreated = api.post("/v1/users", &asked).await.map_err(CreateError::Call)?;
    let api = format!("https://{}", status.api_address);
    let credentials = Credentials {
        hub: HubEntry { user: user.clone(), api, proxy: status.proxy_address, pin },
        ca_pem: own.ca_pem.clone(),
        chain_pem: created.certificate_chain_pem,
        key_pem: key.to_pem().into(),
        token: Some(created.token),
    };
    match credentials.save(folder) {
        Ok(()) => Ok(credentials),
        Err(source) => Err(CreateError::Save { user, source: Box::new(source) }),
    }
}

impl ReachArgs {
    fn reach(&self) -> ClusterScope {
        if self.all_clusters || self.admin {
            ClusterScope::All
        } else {
            ClusterScope::Named(self.cluster.iter().cloned().collect())
        }
    }
}

/// A new folder, its owner's alone; one that exists may hold somebody's credentials.
fn make_folder(folder: &Path) -> Result<(), CreateError> {
    let failed = |source| CreateError::Folder { folder: folder.to_owned(), source };
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CreateError::Exists(folder.to_owned())),
        Err(source) => Err(failed(source)),
    }
}

impl List {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let users: UserList = api.get("/v1/users").await?;
        if self.json {
            return print_json(&users);
        }
        print(table(&users.items, Timestamp::now()).render())
    }
}

impl Delete {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        for name in &self.names {
            api.delete(&format!("/v1/users/{name}")).await?;
            print(format!("user/{name} deleted"))?;
        }
        // Who may not list them learns nothing, and has deleted the users all the same.
        if let Ok(TokenList { items }) = api.get("/v1/tokens").await {
            let now = Timestamp::now();
            let left = |token: &&TokenView| {
                token.expires_at > now && self.names.iter().any(|name| token.created_by == name.as_ref())
            };
            let left: Vec<_> = items.iter().filter(left).map(|token| token.id.as_str()).collect();
            if !left.is_empty() {
                note(format!(
                    "Join tokens that they made still let agents in: cluster-proxy token delete {}",
                    left.join(" ")
                ));
            }
        }
        Ok(())
    }
}

fn table(users: &[UserView], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "ADMIN", "CLUSTERS", "GROUPS", "AGE"]);
    for user in users {
        let clusters = match &user.clusters {
            ClusterScope::All => "all".to_owned(),
            ClusterScope::Named(names) => names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(","),
        };
        table.row([
            user.name.as_ref().into(),
            user.admin.to_string().into(),
            clusters.into(),
            user.groups.join(",").into(),
            quantity::age(user.created_at, now).into(),
        ]);
    }
    table
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Call(error) => error.into(),
            CreateError::Exists(_)
            | CreateError::Folder { .. }
            | CreateError::Key(_)
            | CreateError::Pin(_)
            | CreateError::Save { .. } => Self::new(Exit::Other, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_for_its_owner_and_never_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("deep/alice");
        make_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(make_folder(&folder).unwrap_err(), CreateError::Exists(_)));
    }

    #[test]
    fn a_table_row_says_what_a_user_reaches() {
        let user = UserView {
            name: "alice".parse().unwrap(),
            admin: false,
            groups: vec!["dev".into(), "ops".into()],
            clusters: ClusterScope::Named(["c1".parse().unwrap(), "c2".parse().unwrap()].into()),
            created_at: Timestamp::UNIX_EPOCH,
        };
        let rendered = table(&[user], Timestamp::from_second(60).unwrap()).render();
        assert!(rendered.ends_with("alice   false   c1,c2      dev,ops   60s"), "{rendered}");
    }
}
