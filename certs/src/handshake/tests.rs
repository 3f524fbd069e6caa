//! Handshakes of servers and clients as they are configured here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;

use super::Handshake;
use crate::{
    Authority, ClientTls, Distrust, HUB_SERVER_NAME, KeyFingerprint, PinMismatch, PrivateKey, SelfSigned,
    ServerCredentials, ServerTls, TlsError,
    issue::{Dates, agent_params, server_params},
    pinned_tls,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A chain and its key.
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

struct Hub {
    authority: Authority,
    tls: ServerTls,
}

impl Hub {
    fn new() -> Self {
        let authority = Authority::load_or_create(TempDir::new().unwrap().path()).unwrap();
        let credentials = authority.issue_server(&[], HOUR).unwrap();
        let tls = ServerTls::new(credentials, &[authority.certificate().clone()]).unwrap();
        Self { authority, tls }
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.authority.certificate().clone()]
    }

    fn agent(&self) -> Shown {
        let key = PrivateKey::generate();
        let (cluster, agent) = ("c1".parse().unwrap(), "a1".parse().unwrap());
        let issued = self.authority.issue_agent(&key.csr_der().unwrap(), &cluster, &agent, HOUR).unwrap();
        let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        (chain, key.to_der())
    }

    /// A client that trusts this hub and shows `credentials`.
    fn client(&self, credentials: Option<Shown>) -> Arc<ClientConfig> {
        ClientTls::new(self.roots(), credentials).unwrap().config(&[]).unwrap()
    }

    fn sign(&self, params: &CertificateParams, key: &PrivateKey) -> CertificateDer<'static> {
        self.authority.sign(params, key.pair()).unwrap().into()
    }

    /// A server with this leaf in front of the CA's certificate.
    fn server_with(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        let key = PrivateKey::generate();
        self.server_showing(vec![self.sign(params, &key), self.authority.certificate().clone()], &key)
    }

    fn server_showing(&self, chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Arc<ServerConfig> {
        ServerTls::new(ServerCredentials::new(chain, key.to_der()), &self.roots()).unwrap().config(&[])
    }

    fn pinned(&self) -> Arc<ClientConfig> {
        pinned_tls(&self.authority.pin(), &[]).config()
    }
}

/// Dates that begin at `now` and last an hour.
fn dates(now: SystemTime) -> Dates {
    Dates::new(now, HOUR, now + HOUR)
}

fn server(dates: Dates) -> CertificateParams {
    server_params(&[], dates).unwrap()
}

fn agent(dates: Dates) -> CertificateParams {
    agent_params(&"c1".parse().unwrap(), &"a1".parse().unwrap(), dates).unwrap()
}

fn refusal(handshake: &Handshake) -> CertificateError {
    match &handshake.client_error {
        Some(Error::InvalidCertificate(error)) => error.clone(),
        other => panic!("the client did not refuse the certificate: {other:?}"),
    }
}

#[test]
fn connections_are_tls_1_3_with_post_quantum_key_exchange() {
    let hub = Hub::new();
    let handshake = Handshake::run(&hub.client(Some(hub.agent())), &hub.tls.config(&[]));
    assert!(handshake.succeeded(), "{handshake:?}");
    assert_eq!(handshake.server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = handshake.server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let suite = handshake.server.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn why_a_handshake_was_refused_is_known_beside_it_and_beside_no_other() {
    let [hub, other] = [Hub::new(), Hub::new()];
    let tls = pinned_tls(&hub.authority.pin(), &[]);
    let [(good, trusted), (bad, refused)] = [(); 2].map(|()| tls.witnessed());
    assert!(Handshake::run(&good, &hub.tls.config(&[])).succeeded());
    assert!(!Handshake::run(&bad, &other.tls.config(&[])).succeeded());
    let mismatch = PinMismatch { expected: hub.authority.pin(), presented: vec![other.authority.pin()] };
    assert_eq!((trusted.distrust(), refused.distrust()), (None, Some(Distrust::OtherCa(mismatch))));
    let (config, witness) = ClientTls::new(hub.roots(), None).unwrap().hub(&[]).unwrap().witnessed();
    assert!(!Handshake::run(&config, &other.tls.config(&[])).succeeded());
    assert!(matches!(witness.distrust(), Some(Distrust::Certificate(_))), "{witness:?}");
    let late = hub.server_with(&server(dates(SystemTime::now() + 3 * HOUR)));
    let (config, witness) = tls.witnessed();
    assert!(!Handshake::run(&config, &late).succeeded());
    assert!(matches!(witness.distrust(), Some(Distrust::WrongClock(_))), "{witness:?}");
}

#[test]
fn a_client_may_come_with_or_without_a_certificate() {
    let hub = Hub::new();
    let (chain, key) = hub.agent();
    let with = Handshake::run(&hub.client(Some((chain.clone(), key))), &hub.tls.config(&[]));
    assert!(with.succeeded());
    assert_eq!(with.server.peer_certificates(), Some(&chain[..]));
    let without = Handshake::run(&hub.client(None), &hub.tls.config(&[]));
    assert!(without.succeeded());
    assert_eq!(without.server.peer_certificates(), None);
}

#[test]
fn the_hub_shows_its_leaf_and_its_authority() {
    let hub = Hub::new();
    let handshake = Handshake::run(&hub.client(None), &hub.tls.config(&[]));
    let shown = handshake.client.peer_certificates().unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(KeyFingerprint::of_certificate(&shown[1]).unwrap(), hub.authority.pin());
}

#[test]
fn alpn_is_agreed_on_or_the_connection_refused() {
    let hub = Hub::new();
    let server = hub.tls.config(&[b"two", b"one"]);
    let client = |alpn: &[&[u8]]| ClientTls::new(hub.roots(), None).unwrap().config(alpn).unwrap();
    let agreed = Handshake::run(&client(&[b"one", b"two"]), &server);
    assert_eq!(agreed.server.alpn_protocol(), Some(&b"two"[..]));
    let refused = Handshake::run(&client(&[b"three"]), &server);
    assert_eq!(refused.alert_to_client(), Some(AlertDescription::NoApplicationProtocol));
}

#[test]
fn unfit_client_certificates_are_each_refused_with_their_own_alert() {
    let hub = Hub::new();
    let key = PrivateKey::generate();
    let now = SystemTime::now();
    let expired = hub.sign(&agent(dates(now - 2 * HOUR)), &key);
    let server = hub.sign(&server(dates(now)), &key);
    let foreign = Hub::new().sign(&agent(dates(now)), &key);
    let self_signed: CertificateDer<'static> = agent(dates(now)).self_signed(key.pair()).unwrap().into();
    for (name, certificate, alert) in [
        ("expired", expired, AlertDescription::CertificateExpired),
        ("a server's", server, AlertDescription::UnsupportedCertificate),
        ("foreign", foreign, AlertDescription::UnknownCA),
        ("self-signed", self_signed, AlertDescription::CertificateUnknown),
    ] {
        let client = hub.client(Some((vec![certificate], key.to_der())));
        let handshake = Handshake::run(&client, &hub.tls.config(&[]));
        assert_eq!(handshake.alert_to_client(), Some(alert), "{name}: {handshake:?}");
        assert!(!handshake.succeeded());
    }
}

#[test]
fn a_self_signed_certificate_is_named_as_such() {
    let (hub, key) = (Hub::new(), PrivateKey::generate());
    let own: CertificateDer<'static> = agent(dates(SystemTime::now())).self_signed(key.pair()).unwrap().into();
    let handshake = Handshake::run(&hub.client(Some((vec![own], key.to_der()))), &hub.tls.config(&[]));
    match handshake.server_error {
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => assert!(other.0.is::<SelfSigned>()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_that_brings_its_own_authority_is_foreign() {
    let (hub, other) = (Hub::new(), Hub::new());
    let handshake = Handshake::run(&hub.client(Some(other.agent())), &hub.tls.config(&[]));
    assert_eq!(handshake.alert_to_client(), Some(AlertDescription::UnknownCA));
}

#[test]
fn an_authority_called_like_the_hubs_own_signs_for_nobody() {
    let (hub, key) = (Hub::new(), PrivateKey::generate());
    let (_, own) = x509_parser::parse_x509_certificate(hub.authority.certificate()).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = own.subject().iter_common_name().next().unwrap().as_str().unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let issuer = Issuer::from_params(&params, key.pair());
    let forged = agent(dates(SystemTime::now())).signed_by(key.pair(), &issuer).unwrap();
    let handshake = Handshake::run(&hub.client(Some((vec![forged.into()], key.to_der()))), &hub.tls.config(&[]));
    assert_eq!(handshake.alert_to_client(), Some(AlertDescription::DecryptError), "{handshake:?}");
}

#[test]
fn no_session_is_resumed() {
    let hub = Hub::new();
    // Also with a client that would resume if it could.
    let mut eager = ClientConfig::clone(&hub.client(Some(hub.agent())));
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    for client in [hub.client(Some(hub.agent())), Arc::new(eager)] {
        let server = hub.tls.config(&[]);
        for _ in 0..2 {
            let handshake = Handshake::run(&client, &server);
            assert!(handshake.succeeded());
            assert_eq!(handshake.server.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(handshake.client.tls13_tickets_received(), 0);
        }
        assert_eq!(server.max_early_data_size, 0);
    }
}

#[test]
fn new_roots_and_a_new_leaf_take_effect_in_a_config_that_is_in_use() {
    let (old, new) = (Hub::new(), Hub::new());
    let server = old.tls.config(&[]);
    let (old_client, new_client) = (old.client(Some(old.agent())), new.client(Some(new.agent())));
    assert!(Handshake::run(&old_client, &server).succeeded());
    assert!(!Handshake::run(&new_client, &server).succeeded());

    old.tls.swap(new.authority.issue_server(&[], HOUR).unwrap(), &new.roots()).unwrap();
    assert!(!Handshake::run(&old_client, &server).succeeded());
    assert!(Handshake::run(&new_client, &server).succeeded());
}

#[test]
fn a_client_swaps_its_certificate_in_a_config_that_is_in_use() {
    let hub = Hub::new();
    let tls = ClientTls::new(hub.roots(), None).unwrap();
    let client = tls.config(&[]).unwrap();
    for _ in 0..2 {
        let (chain, key) = hub.agent();
        tls.swap(chain.clone(), key).unwrap();
        let handshake = Handshake::run(&client, &hub.tls.config(&[]));
        assert!(handshake.succeeded());
        assert_eq!(handshake.server.peer_certificates(), Some(&chain[..]));
    }
}

#[test]
fn bad_credentials_and_roots_are_refused_and_the_old_ones_stay() {
    let hub = Hub::new();
    let server = hub.tls.config(&[]);
    let good = || hub.authority.issue_server(&[], HOUR).unwrap();
    let mixed = ServerCredentials::new(good().chain().to_vec(), PrivateKey::generate().to_der());
    let empty = ServerCredentials::new(vec![], PrivateKey::generate().to_der());
    for bad in [mixed, empty] {
        assert!(matches!(hub.tls.swap(bad, &hub.roots()), Err(TlsError::Credentials(_))));
    }
    assert!(matches!(hub.tls.swap(good(), &[]), Err(TlsError::NoRoots)));
    assert!(matches!(hub.tls.swap(good(), &[b"garbage".to_vec().into()]), Err(TlsError::Roots(_))));
    assert!(matches!(ClientTls::new(vec![], None), Err(TlsError::NoRoots)));
    let client = ClientTls::new(hub.roots(), Some(hub.agent())).unwrap();
    assert!(matches!(client.swap(hub.agent().0, PrivateKey::generate().to_der()), Err(TlsError::Credentials(_))));
    assert!(Handshake::run(&client.config(&[]).unwrap(), &server).succeeded());
}

#[test]
fn a_hub_that_is_not_named_as_one_is_refused() {
    let hub = Hub::new();
    let mut params = server(dates(SystemTime::now()));
    params.subject_alt_names = vec![SanType::DnsName("hub.example".try_into().unwrap())];
    let server = hub.server_with(&params);
    for (client, dialled) in [(hub.client(None), HUB_SERVER_NAME), (hub.pinned(), "hub.example")] {
        let handshake = Handshake::run_with_name(&client, &server, dialled);
        assert!(matches!(refusal(&handshake), CertificateError::NotValidForNameContext { .. }), "{handshake:?}");
    }
}

#[test]
fn the_right_pin_is_accepted() {
    let hub = Hub::new();
    let handshake = Handshake::run_with_name(&hub.pinned(), &hub.tls.config(&[]), "hub.example");
    assert!(handshake.succeeded(), "{handshake:?}");
    assert_eq!(handshake.server.peer_certificates(), None);
}

#[test]
fn another_hub_is_refused_with_both_pins() {
    let (hub, other) = (Hub::new(), Hub::new());
    let handshake = Handshake::run(&hub.pinned(), &other.tls.config(&[]));
    let mismatch = PinMismatch::find(handshake.client_error.as_ref().unwrap()).unwrap();
    let expected = PinMismatch { expected: hub.authority.pin(), presented: vec![other.authority.pin()] };
    assert_eq!(*mismatch, expected);
    assert!(!handshake.succeeded());
}

#[test]
fn a_chain_without_its_authority_matches_no_pin() {
    let (hub, key) = (Hub::new(), PrivateKey::generate());
    let leaf = hub.sign(&server(dates(SystemTime::now())), &key);
    // Not even the pin of the leaf's own key, since no CA has it.
    for pin in [hub.authority.pin(), key.fingerprint()] {
        for chain in [vec![leaf.clone()], vec![leaf.clone(), leaf.clone()]] {
            let client = pinned_tls(&pin, &[]).config();
            let handshake = Handshake::run(&client, &hub.server_showing(chain, &key));
            let mismatch = PinMismatch::find(handshake.client_error.as_ref().unwrap()).unwrap();
            assert_eq!(mismatch.presented, []);
        }
    }
}

#[test]
fn the_pinned_authority_shown_with_a_leaf_it_has_not_issued_is_refused() {
    let (hub, other, key) = (Hub::new(), Hub::new(), PrivateKey::generate());
    let leaf = other.sign(&server(dates(SystemTime::now())), &key);
    let chain = vec![leaf, other.authority.certificate().clone(), hub.authority.certificate().clone()];
    let handshake = Handshake::run(&hub.pinned(), &hub.server_showing(chain, &key));
    assert_eq!(refusal(&handshake), CertificateError::UnknownIssuer);
}

#[test]
fn a_leaf_that_is_not_for_servers_serves_nobody_that_joins() {
    let hub = Hub::new();
    for purposes in [vec![ExtendedKeyUsagePurpose::ClientAuth], vec![]] {
        let mut params = server(dates(SystemTime::now()));
        params.extended_key_usages = purposes;
        let handshake = Handshake::run(&hub.pinned(), &hub.server_with(&params));
        assert_eq!(refusal(&handshake), CertificateError::InvalidPurpose);
    }
}

#[test]
fn an_expired_hub_is_refused() {
    let hub = Hub::new();
    let server = hub.server_with(&server(dates(SystemTime::now() - 2 * HOUR)));
    for client in [hub.client(None), hub.pinned()] {
        let handshake = Handshake::run(&client, &server);
        // It is this hub all the same: somebody's clock is wrong.
        let error = handshake.client_error.as_ref().unwrap();
        assert!(crate::WrongClock::find(error).is_some(), "{handshake:?}");
    }
}

#[test]
fn an_expired_authority_is_refused_though_its_pin_is_right() {
    let (hub, key, leaf_key) = (Hub::new(), PrivateKey::generate(), PrivateKey::generate());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let authority = params.self_signed(key.pair()).unwrap();
    let issuer = Issuer::from_params(&params, key.pair());
    let leaf = server(dates(SystemTime::now())).signed_by(leaf_key.pair(), &issuer).unwrap();
    let server = hub.server_showing(vec![leaf.into(), authority.into()], &leaf_key);
    let client = pinned_tls(&key.fingerprint(), &[]).config();
    assert_eq!(refusal(&Handshake::run(&client, &server)), CertificateError::Expired);
}

#[test]
fn an_authority_that_serves_with_its_own_certificate_is_refused() {
    let (hub, key) = (Hub::new(), PrivateKey::generate());
    let mut params = server(dates(SystemTime::now()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own: CertificateDer<'static> = params.self_signed(key.pair()).unwrap().into();
    for chain in [vec![own.clone()], vec![own.clone(), own]] {
        let client = pinned_tls(&key.fingerprint(), &[]).config();
        assert!(!Handshake::run(&client, &hub.server_showing(chain, &key)).succeeded());
    }
}

#[test]
fn the_roots_a_client_knows_are_not_taken_from_the_chain() {
    let (hub, other) = (Hub::new(), Hub::new());
    let handshake = Handshake::run(&hub.client(None), &other.tls.config(&[]));
    assert_eq!(refusal(&handshake), CertificateError::UnknownIssuer);
}

#[test]
fn a_hub_is_valid_for_its_loopback_names_too() {
    let hub = Hub::new();
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(Handshake::run_with_name(&hub.client(None), &hub.tls.config(&[]), name).succeeded());
    }
    assert!(!Handshake::run_with_name(&hub.client(None), &hub.tls.config(&[]), "hub.example").succeeded());
}

#[test]
fn an_ended_certificate_of_an_agent_is_let_through_where_that_is_asked_for_and_proves_its_key_as_any_other() {
    let hub = Hub::new();
    let ended = |params: CertificateParams, key: &PrivateKey| hub.sign(&params, key);
    let dates = Dates::new(SystemTime::now() - 2 * HOUR, HOUR, SystemTime::now());
    let key = PrivateKey::generate();
    let agent = ended(agent_params(&"c1".parse().unwrap(), &"a1".parse().unwrap(), dates).unwrap(), &key);
    let user = ended(crate::issue::user_params(&"alice".parse().unwrap(), None, dates).unwrap(), &key);
    let (strict, lenient) = (hub.tls.config(&[]), hub.tls.config_for_ended_agents(&[]));
    let shake = |leaf: &CertificateDer<'static>, server| {
        Handshake::run(&hub.client(Some((vec![leaf.clone()], key.to_der()))), server)
    };
    assert_eq!(shake(&agent, &strict).alert_to_client(), Some(AlertDescription::CertificateExpired));
    assert!(shake(&agent, &lenient).succeeded());
    assert_eq!(shake(&user, &lenient).alert_to_client(), Some(AlertDescription::CertificateExpired));

    // Somebody who has the certificate, and not its key.
    let other = crate::provider().key_provider.load_private_key(PrivateKey::generate().to_der()).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(vec![agent], other);
    let mut thief = (*hub.client(None)).clone();
    thief.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
    let refused = Handshake::run(&Arc::new(thief), &lenient);
    assert!(!refused.succeeded() && refused.server_error.is_some(), "{:?}", refused.server_error);

    // Another hub's agent.
    let foreign = Hub::new();
    let leaf = foreign.sign(&agent_params(&"c1".parse().unwrap(), &"a1".parse().unwrap(), dates).unwrap(), &key);
    assert_eq!(shake(&leaf, &lenient).alert_to_client(), Some(AlertDescription::UnknownCA));
}

/// The hub's clock was hours fast when it made them, or is hours slow now.
#[test]
fn a_certificate_that_has_not_begun_is_good_for_the_hub_that_made_it() {
    let (hub, foreign, key) = (Hub::new(), Hub::new(), PrivateKey::generate());
    let later = dates(SystemTime::now() + 6 * HOUR);
    let agent = agent_params(&"c1".parse().unwrap(), &"a1".parse().unwrap(), later).unwrap();
    let user = crate::issue::user_params(&"alice".parse().unwrap(), None, later).unwrap();
    for params in [agent, user] {
        let shake = |signer: &Hub| {
            let leaf = signer.sign(&params, &key);
            Handshake::run(&hub.client(Some((vec![leaf], key.to_der()))), &hub.tls.config(&[]))
        };
        assert!(shake(&hub).succeeded());
        assert_eq!(shake(&foreign).alert_to_client(), Some(AlertDescription::UnknownCA));
    }
}
