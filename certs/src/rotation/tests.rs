//! A rotation step by step, broken off anywhere, and what clients make of the hub meanwhile.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use proptest::prelude::*;
use rustls::{ClientConfig, pki_types::CertificateDer};

use super::*;
use crate::{ClientTls, Identity, ServerTls, handshake::Handshake, pinned_tls};

const HOUR: Duration = Duration::from_secs(3600);

fn authority(folder: &Path) -> Authority {
    Authority::load_or_create(folder).unwrap()
}

fn trusted(authority: &Authority) -> BTreeSet<Pin> {
    authority.pins().map(|(pin, _)| pin).collect()
}

fn take(folder: &Path, step: Step) -> Authority {
    Authority::step(folder, step).unwrap().expect("there was something to do")
}

/// As a hub with this authority serves.
fn server(authority: &Authority) -> Arc<rustls::ServerConfig> {
    ServerTls::new(authority.issue_server(&[], HOUR).unwrap(), &authority.roots()).unwrap().config(&[])
}

/// A client that trusts `roots` and shows a user's certificate.
fn user_of(authority: &Authority, roots: Vec<CertificateDer<'static>>) -> Arc<ClientConfig> {
    let key = PrivateKey::generate();
    let chain = authority.issue_user(&key.csr_der().unwrap(), &"alice".parse().unwrap(), None, HOUR).unwrap();
    let chain = Root::all_leaves(&chain.chain_pem);
    ClientTls::new(roots, Some((chain, key.to_der()))).unwrap().config(&[]).unwrap()
}

impl Root {
    fn all_leaves(pem: &str) -> Vec<CertificateDer<'static>> {
        use rustls::pki_types::pem::PemObject;
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }
}

#[test]
fn until_finish_the_old_ca_stands_for_the_hub_and_whom_either_has_signed_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let old = authority(folder.path());
    let (old_user, old_pin) = (user_of(&old, old.roots()), old.pin());
    let begun = take(folder.path(), Step::Begin);
    assert_eq!((begun.phase(), begun.signer(), begun.pins().count()), (Phase::Begun, old_pin, 2));
    let new_pin = begun.newest();
    let new_root = vec![begun.roots()[1].clone()];
    let signing = take(folder.path(), Step::Sign);
    assert_eq!((signing.phase(), signing.signer(), signing.newest()), (Phase::Signing, new_pin, new_pin));
    let new_user = user_of(&signing, new_root.clone());
    for stage in [&begun, &signing] {
        let server = server(stage);
        assert_eq!(stage.pin(), old_pin);
        assert!(Handshake::run(&pinned_tls(&old_pin, &[]).config(), &server).succeeded(), "{:?}", stage.phase());
        // Who has the old key is nobody to whom the new root alone is known, whatever the hub has shown.
        assert!(!Handshake::run(&pinned_tls(&new_pin, &[]).config(), &server).succeeded(), "{:?}", stage.phase());
        assert!(!Handshake::run(&new_user, &server).succeeded(), "{:?}", stage.phase());
        for user in [&old_user, &user_of(&signing, stage.roots()), &user_of(stage, stage.roots())] {
            let handshake = Handshake::run(user, &server);
            assert!(handshake.succeeded(), "{:?}", stage.phase());
            let leaf = handshake.server.peer_certificates().unwrap()[0].clone();
            assert!(matches!(Identity::from_certificate(&leaf), Ok(Identity::User { .. })));
        }
    }
    let finished = take(folder.path(), Step::Finish);
    assert_eq!((finished.phase(), finished.pin()), (Phase::Settled, new_pin));
    assert_eq!(finished.retired().collect::<Vec<_>>(), [old_pin]);
    let server = server(&finished);
    assert!(Handshake::run(&new_user, &server).succeeded());
    assert!(!Handshake::run(&old_user, &server).succeeded());
    assert!(!Handshake::run(&user_of(&old, new_root), &server).succeeded(), "the old one's certificates are over");
    assert!(!Handshake::run(&pinned_tls(&old_pin, &[]).config(), &server).succeeded());
}

#[test]
fn the_issuer_of_a_certificate_is_known_while_it_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = |authority: &Authority| {
        let csr = PrivateKey::generate().csr_der().unwrap();
        let issued = authority.issue_agent(&csr, &"c".parse().unwrap(), &"a".parse().unwrap(), HOUR).unwrap();
        Root::all_leaves(&issued.leaf_pem).remove(0)
    };
    let old = leaf(&authority(folder.path()));
    take(folder.path(), Step::Begin);
    let signing = take(folder.path(), Step::Sign);
    let new = leaf(&signing);
    let pins: Vec<_> = signing.pins().map(|(pin, _)| pin).collect();
    assert_eq!([signing.issuer_of(&old), signing.issuer_of(&new)], [Some(pins[0]), Some(pins[1])]);
    let finished = take(folder.path(), Step::Finish);
    assert_eq!([finished.issuer_of(&old), finished.issuer_of(&new)], [None, Some(pins[1])]);
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(finished.issuer_of(&leaf(&authority(elsewhere.path()))), None);
}

#[test]
fn a_step_that_was_taken_is_nothing_to_do_and_one_too_early_names_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = authority(folder).pin();
    for step in [Step::Sign, Step::Finish, Step::Revoke] {
        assert!(matches!(Authority::step(folder, step), Err(RotationError::NotBegun)), "{step:?}");
    }
    let begun = take(folder, Step::Begin);
    assert!(matches!(Authority::step(folder, Step::Finish), Err(RotationError::NotSigning)));
    for (step, then) in [(Step::Begin, begun.signer()), (Step::Sign, begun.newest()), (Step::Finish, begun.newest())] {
        let _ = Authority::step(folder, step).unwrap();
        assert!(Authority::step(folder, step).unwrap().is_none(), "{step:?} again");
        assert_eq!(authority(folder).signer(), then);
    }
    assert!(Authority::step(folder, Step::Revoke).unwrap().is_none());
    assert_ne!(authority(folder).pin(), first);
}

#[test]
fn abort_goes_back_one_step_and_then_to_where_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let first = authority(folder.path()).pin();
    let new = take(folder.path(), Step::Begin).newest();
    take(folder.path(), Step::Sign);
    let back = take(folder.path(), Step::Abort);
    assert_eq!((back.phase(), back.pin(), back.newest()), (Phase::Begun, first, new));
    let out = take(folder.path(), Step::Abort);
    assert_eq!((out.phase(), out.pin()), (Phase::Settled, first));
    assert_eq!(out.retired().collect::<Vec<_>>(), [new]);
    assert!(Authority::step(folder.path(), Step::Abort).unwrap().is_none());
    let mode = fs::metadata(folder.path().join(KEYS)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let keys = fs::read_to_string(folder.path().join(KEYS)).unwrap();
    assert_eq!(keys.matches("BEGIN PRIVATE KEY").count(), 1, "the key of the root that was given up is gone");
}

#[test]
fn a_supplied_authority_is_rotated_too() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, DnValue, IsCa, string::PrintableString};
    let folder = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, DnValue::PrintableString(PrintableString::try_from("Example").unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.path().join(CERTIFICATES), params.self_signed(key.pair()).unwrap().pem()).unwrap();
    fs::write(folder.path().join(KEYS), key.to_pem()).unwrap();
    let begun = take(folder.path(), Step::Begin);
    assert_eq!(begun.pin(), key.fingerprint());
    assert!(Handshake::run(&pinned_tls(&begun.pin(), &[]).config(), &server(&begun)).succeeded());
}

fn any_step() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![Step::Begin, Step::Sign, Step::Finish, Step::Abort, Step::Revoke])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done and wherever it breaks off: the folder is an authority that is the one before or the one after, and the
    /// step, taken again, ends where it would have.
    #[test]
    fn a_crash_between_any_two_files_loses_nothing(steps in prop::collection::vec((any_step(), 0..5usize), 1..8)) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let _ = authority(folder);
        for (step, after) in steps {
            let before = authority(folder);
            let mut left = after;
            let crashed = step_by(folder, step, &mut |folder, file| {
                let crash = || RotationError::Write { path: file.0.into(), source: io::ErrorKind::Other.into() };
                left = left.checked_sub(1).ok_or_else(crash)?;
                write(folder, file)
            });
            let between = authority(folder);
            let signed = |authority: &Authority| server(authority).clone();
            let _ = signed(&between);
            if let Err(RotationError::NotBegun | RotationError::NotSigning) = crashed {
                prop_assert_eq!(trusted(&before), trusted(&between));
                continue;
            }
            // Who signs is trusted, and nobody is trusted who was not, but for the root that begins.
            prop_assert!([between.pin(), between.signer()].iter().all(|pin| trusted(&between).contains(pin)));
            let (known, now) = (trusted(&before), trusted(&between));
            prop_assert!(now.is_subset(&known) || step == Step::Begin && known.is_subset(&now));
            let done = Authority::step(folder, step).unwrap().unwrap_or(between);
            match step {
                Step::Begin => prop_assert!(done.phase() != Phase::Settled),
                Step::Sign => prop_assert_eq!(done.phase(), Phase::Signing),
                Step::Finish | Step::Revoke => prop_assert_eq!(done.phase(), Phase::Settled),
                Step::Abort => prop_assert_eq!(done.signer(), done.pin()),
            }
            Authority::forget_retired_keys(folder).unwrap();
            let keys = PrivateKey::load_all(&folder.join(KEYS)).unwrap();
            let over: Vec<_> = done.retired().collect();
            prop_assert!(keys.iter().all(|key| !over.contains(&key.fingerprint())), "a key outlived its root");
        }
    }
}
