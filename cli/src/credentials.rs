//! Which credentials the command uses.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use certs::{Credentials, CredentialsError};

use crate::{
    config,
    failure::{Exit, Failure},
};

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("there are no credentials in {}", listed(.0))]
    None(Vec<PathBuf>),
    #[error("the credentials in {} cannot be used", .folder.display())]
    Unusable { folder: PathBuf, source: Box<CredentialsError> },
}

/// Credentials, and where they are.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// By its absolute path.
    pub(crate) folder: PathBuf,
    pub(crate) credentials: Credentials,
}

/// The credentials in `named`, or else in the first of the usual folders that has some.
pub(crate) fn find(named: Option<&Path>) -> Result<Credentials, FindError> {
    locate(named).map(|located| located.credentials)
}

/// As [`find`], with the folder.
pub(crate) fn locate(named: Option<&Path>) -> Result<Located, FindError> {
    find_in(named.map_or_else(config::credential_folders, |named| vec![named.to_owned()]))
}

/// The folder of the credentials that [`find`] gives.
pub(crate) fn folder(named: Option<&Path>) -> Result<PathBuf, FindError> {
    folder_in(named.map_or_else(config::credential_folders, |named| vec![named.to_owned()]))
}

/// The credentials in the first of `folders` that has some.
fn find_in(folders: Vec<PathBuf>) -> Result<Located, FindError> {
    let folder = folder_in(folders)?;
    let credentials = Credentials::load(&folder)
        .map_err(|source| FindError::Unusable { folder: folder.clone(), source: Box::new(source) })?;
    let folder = fs::canonicalize(&folder).unwrap_or(folder);
    Ok(Located { folder, credentials })
}

fn folder_in(folders: Vec<PathBuf>) -> Result<PathBuf, FindError> {
    folders.iter().find(|folder| holds_some(folder)).cloned().ok_or(FindError::None(folders))
}

/// A folder that may not be looked into is not passed over: its owner is asked for, not somebody else's credentials.
fn holds_some(folder: &Path) -> bool {
    !matches!(fs::metadata(folder.join("hub.toml")), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn listed(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if folders.is_empty() { "any folder (HOME is not set)".into() } else { folders.join(" or ") }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        let next = match &error {
            FindError::None(_) => {
                "an administrator makes them with 'cluster-proxy user create NAME'; then --credentials DIR names their \
                 folder"
            }
            FindError::Unusable { source, .. } if matches!(**source, CredentialsError::File { .. }) => {
                "run the command as their owner, or name others with --credentials DIR"
            }
            FindError::Unusable { .. } => "",
        };
        Self::new(Exit::NotAllowed, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_with_credentials_is_the_one() {
        let root = tempfile::tempdir().unwrap();
        let (empty, damaged) = (root.path().join("a"), root.path().join("b"));
        fs::create_dir(&empty).unwrap();
        fs::create_dir(&damaged).unwrap();
        fs::write(damaged.join("hub.toml"), "x").unwrap();
        let error = find_in(vec![root.path().join("nowhere"), empty.clone(), damaged.clone()]).unwrap_err();
        assert!(matches!(&error, FindError::Unusable { folder, .. } if *folder == damaged), "{error}");
        let error = find_in(vec![empty.clone()]).unwrap_err();
        assert_eq!(error.to_string(), format!("there are no credentials in {}", empty.display()));
    }

    #[test]
    fn missing_credentials_are_exit_77_with_a_command_to_type() {
        let failure = Failure::from(find_in(Vec::new()).unwrap_err());
        assert!(failure.line().contains("cluster-proxy user create"), "{}", failure.line());
    }
}
