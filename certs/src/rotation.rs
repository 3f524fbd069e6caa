//! Rotating the CA, step by step: trust goes first, signing after, and the old root goes last.
//!
//! | step | `ca.crt` | `ca.key` | who signs |
//! |---|---|---|---|
//! | – | old | old | old |
//! | begin | old, new | old, new | old |
//! | sign | old, new | new, old | new; the hub's own certificate is of the old one still |
//! | finish | new | new | new |
//!
//! Abort goes one step back, and after `begin` gives the new root up. Revoke is finish without waiting, from anywhere but the first
//! row. Each file is written whole or not at all, and in an order in which a crash between two of them leaves an authority that
//! works; the same step, taken again, goes on from there.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    authority::{Authority, AuthorityError, CERTIFICATES, KEYS, Phase, RETIRED, private_keys},
    file::{write_public, write_secret},
    issue::IssueError,
    key::PrivateKey,
    pin::Pin,
    root::Root,
};

/// Roots that are remembered when they are trusted no more: whoever trusts them yet is told.
const REMEMBERED: usize = 16;

/// What can be done about the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a new root beside the old one.
    Begin,
    /// Has the new root sign.
    Sign,
    /// Drops the old root, once the new one signs.
    Finish,
    /// Has the old root sign again; where it does, drops the new one.
    Abort,
    /// Has the new root sign and drops the old one, whatever is signed by that.
    Revoke,
}

/// Why a step was not taken. What is in the folder works.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("no rotation of the CA has begun; run 'cluster-proxy ca rotate begin' first")]
    NotBegun,
    #[error("the old CA still signs; run 'cluster-proxy ca rotate sign' first")]
    NotSigning,
    #[error("ca.key does not hold the key of the root {0}; copy ca.key from the hub where the rotation was begun")]
    NoKey(Pin),
    #[error("a new CA cannot be made")]
    Make(#[source] IssueError),
    #[error("the CA cannot be used")]
    Authority(#[source] AuthorityError),
    #[error("cannot write {path}; check its permissions and the disk's free space, then run the same command again")]
    Write { path: PathBuf, source: io::Error },
}

/// A file's name, and what is to be in it.
type Write = (&'static str, String);

impl Authority {
    /// Takes a step in `folder`. `None` when there was nothing to do: it had been taken.
    pub fn step(folder: &Path, step: Step) -> Result<Option<Self>, RotationError> {
        step_by(folder, step, &mut write)
    }

    /// Removes the keys of roots that were given up: a crash may have kept them.
    pub fn forget_retired_keys(folder: &Path) -> Result<(), RotationError> {
        let (authority, keys) = load(folder)?;
        let kept: Vec<_> = keys.iter().filter(|(pin, _)| authority.retired().all(|over| over != *pin)).collect();
        if kept.len() == keys.len() {
            return Ok(());
        }
        let text = kept.iter().map(|(_, pem)| pem.as_str()).collect();
        write(folder, &(KEYS, text))
    }
}

fn step_by(
    folder: &Path,
    step: Step,
    write: &mut dyn FnMut(&Path, &Write) -> Result<(), RotationError>,
) -> Result<Option<Authority>, RotationError> {
    let (authority, keys) = load(folder)?;
    let writes = plan(&authority, &keys, step)?;
    if writes.is_empty() {
        return Ok(None);
    }
    for file in &writes {
        write(folder, file)?;
    }
    Authority::load_or_create(folder).map(Some).map_err(RotationError::Authority)
}

fn load(folder: &Path) -> Result<(Authority, Vec<(Pin, String)>), RotationError> {
    let authority = Authority::load_or_create(folder).map_err(RotationError::Authority)?;
    let keys = private_keys(&folder.join(KEYS)).map_err(RotationError::Authority)?;
    Ok((authority, keys.iter().map(|key| (key.fingerprint(), key.to_pem())).collect()))
}

fn write(folder: &Path, (name, text): &Write) -> Result<(), RotationError> {
    let path = folder.join(name);
    let written = if *name == KEYS { write_secret(&path, text) } else { write_public(&path, text) };
    written.map_err(|source| RotationError::Write { path, source })
}

/// What is to be written, in this order.
fn plan(authority: &Authority, keys: &[(Pin, String)], step: Step) -> Result<Vec<Write>, RotationError> {
    let (signer, newest) = (authority.signer(), authority.newest());
    match (step, authority.phase()) {
        (Step::Begin, Phase::Settled) => begin(authority, keys),
        (Step::Sign | Step::Revoke, Phase::Begun) => {
            let mut writes = vec![signed_by(authority, keys, newest)?];
            if step == Step::Revoke {
                writes.extend(alone(authority, keys, newest)?);
            }
            Ok(writes)
        }
        (Step::Finish | Step::Revoke, Phase::Signing) | (Step::Abort, Phase::Begun) => alone(authority, keys, signer),
        (Step::Abort, Phase::Signing) => {
            let old = authority.keyed().next().map_or(signer, |root| root.pin);
            Ok(vec![signed_by(authority, keys, old)?])
        }
        (Step::Finish, Phase::Begun) => Err(RotationError::NotSigning),
        (Step::Sign, Phase::Settled) => Err(RotationError::NotBegun),
        (Step::Finish | Step::Revoke, Phase::Settled) if authority.retired.is_empty() => Err(RotationError::NotBegun),
        (Step::Finish | Step::Revoke | Step::Abort, Phase::Settled) if authority.spare_keys => {
            Ok(vec![(KEYS, key_of(keys, signer)?)])
        }
        (Step::Finish | Step::Revoke | Step::Abort, Phase::Settled)
        | (Step::Begin, Phase::Begun | Phase::Signing)
        | (Step::Sign, Phase::Signing) => Ok(Vec::new()),
    }
}

/// The key first: a key without a root counts for nothing.
fn begin(authority: &Authority, keys: &[(Pin, String)]) -> Result<Vec<Write>, RotationError> {
    let new = PrivateKey::generate();
    let made = Root::make(&new).map_err(RotationError::Make)?;
    let private = format!("{}{}", key_of(keys, authority.signer())?, new.to_pem());
    let trusted = format!("{}{made}", authority.roots_pem());
    Ok(vec![(KEYS, private), (CERTIFICATES, trusted)])
}

/// One file alone: the one that says who signs.
fn signed_by(authority: &Authority, keys: &[(Pin, String)], signer: Pin) -> Result<Write, RotationError> {
    let others = authority.roots.iter().filter(|root| root.pin != signer);
    let rest: String = others.filter_map(|root| key_of(keys, root.pin).ok()).collect();
    Ok((KEYS, format!("{}{rest}", key_of(keys, signer)?)))
}

/// The list of what is over first: a root in both is still trusted. Its key last.
fn alone(authority: &Authority, keys: &[(Pin, String)], kept: Pin) -> Result<Vec<Write>, RotationError> {
    let now = SystemTime::now();
    let over: Vec<&Root> = authority
        .retired
        .iter()
        .chain(authority.roots.iter().filter(|root| root.pin != kept))
        .filter(|root| root.not_after > now)
        .collect();
    let latest = &over[over.len().saturating_sub(REMEMBERED)..];
    let retired = latest.iter().map(|root| root.pem.as_str()).collect();
    let trusted = authority.roots.iter().filter(|root| root.pin == kept).map(|root| root.pem.as_str()).collect();
    Ok(vec![(RETIRED, retired), (CERTIFICATES, trusted), (KEYS, key_of(keys, kept)?)])
}

fn key_of(keys: &[(Pin, String)], pin: Pin) -> Result<String, RotationError> {
    keys.iter().find(|(of, _)| *of == pin).map(|(_, pem)| pem.clone()).ok_or(RotationError::NoKey(pin))
}

#[cfg(test)]
mod tests;
