//! Clocks that differ: told as what they are, and not as a wrong hub.
//!
//! A certificate that is right in everything but its dates tells when it was made by the clock of who made it. What is found out
//! here is for people: such a certificate is refused like any other.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    distrust::find,
    issue::{ROOT_SKEW, SERVER_VALIDITY, ends_at},
};

/// The hub is the right one, and its certificate is not valid by this machine's clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrongClock {
    /// This machine's time.
    pub here: SystemTime,
    /// The hub's when it made the certificate, which it does anew every day.
    pub hub: SystemTime,
}

impl WrongClock {
    /// How its sentence begins, and no other.
    pub const SAYS: &str = "the clock of this machine or the hub's is wrong";

    /// It among the causes of an error, also inside of an [`std::io::Error`] or a [`rustls::Error`].
    pub fn find<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        find(error)
    }

    fn of(leaf: &CertificateDer<'_>, now: UnixTime) -> Option<Self> {
        let at = |time: UnixTime| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
        // It begins with its root, and ends with it at the latest.
        let hub = at(end(leaf)?)?.checked_sub(SERVER_VALIDITY)?.max(at(begin(leaf)?)?.checked_add(ROOT_SKEW)?);
        Some(Self { here: at(now)?, hub })
    }
}

impl fmt::Display for WrongClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { here, hub } = *self;
        let apart = here.duration_since(hub).unwrap_or_else(|earlier| earlier.duration());
        let side = if here < hub { "behind" } else { "ahead" };
        write!(
            f,
            "{}: here it is {}, and the hub made its certificate at {} by its own, {} {side}; set the one that is wrong",
            Self::SAYS,
            shown(here),
            shown(hub),
            span(apart),
        )
    }
}

/// rustls tells what it wraps by `Debug`.
impl fmt::Debug for WrongClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for WrongClock {}

/// A time as `2026-01-31T23:59:59Z`.
pub fn shown(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (date, clock) = (time.date(), time.time());
    format!("{date}T{:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second())
}

/// How far two times are apart, as people say it.
pub fn span(apart: Duration) -> String {
    match apart.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The beginning of a certificate, as rustls tells times.
pub(crate) fn begin(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let begin = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(begin)))
}

/// The end of a certificate, as rustls tells times.
pub(crate) fn end(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let end = ends_at(certificate)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(UnixTime::since_unix_epoch(end))
}

/// Verifies the hub's certificate at `now`. Where nothing but the dates is wrong, the error says that.
pub(crate) fn verify_at(
    leaf: &CertificateDer<'_>,
    now: UnixTime,
    verify: impl Fn(UnixTime) -> Result<ServerCertVerified, rustls::Error>,
) -> Result<ServerCertVerified, rustls::Error> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let error = match verify(now) {
        Err(error) => error,
        verified => return verified,
    };
    let of_dates = matches!(
        error,
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    );
    let is_the_hub = of_dates && end(leaf).is_some_and(|end| verify(end).is_ok());
    match WrongClock::of(leaf, now).filter(|_| is_the_hub) {
        Some(wrong) => Err(CertificateError::Other(OtherError(Arc::new(wrong))).into()),
        None => Err(error),
    }
}

/// webpki's verifier, and which clocks differ.
#[derive(Debug)]
pub(crate) struct Dated(pub(crate) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Dated {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_at(leaf, now, |at| self.0.verify_server_cert(leaf, intermediates, name, ocsp, at))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{
        Authority, HUB_SERVER_NAME,
        server_tls::{provider, root_store},
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_clock_up_to_a_day_slow_is_good_enough_and_one_that_is_wrong_is_told_with_both_times() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let leaf = authority.issue_server(&[], 90 * DAY).unwrap().chain()[0].clone();
        let verifier = |roots: &Authority| {
            let roots = root_store(std::slice::from_ref(roots.certificate())).unwrap();
            Dated(WebPkiServerVerifier::builder_with_provider(roots, provider()).build().unwrap())
        };
        let (name, now) = (ServerName::try_from(HUB_SERVER_NAME).unwrap(), SystemTime::now());
        let at = |time: SystemTime| UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let verify = |verifier: &Dated, time| verifier.verify_server_cert(&leaf, &[], &name, &[], at(time));
        let own = verifier(&authority);
        for good in [now, now - DAY + Duration::from_secs(60), now + 89 * DAY] {
            verify(&own, good).unwrap();
        }
        for (wrong, side) in [(now - 40 * DAY, "behind"), (now + 100 * DAY, "ahead")] {
            let error = io::Error::other(verify(&own, wrong).unwrap_err());
            let found = WrongClock::find(&error).unwrap().to_string();
            assert!(found.contains(&shown(wrong)[..16]) && found.contains(&shown(now)[..10]), "{found}");
            assert!(found.contains(side) && found.contains(WrongClock::SAYS), "{found}");
        }
        // Another hub's certificate tells no time.
        let other = tempfile::tempdir().unwrap();
        let other = verifier(&Authority::load_or_create(other.path()).unwrap());
        for time in [now, now - 40 * DAY, now + 100 * DAY] {
            assert_eq!(WrongClock::find(&verify(&other, time).unwrap_err()), None);
        }
    }

    #[test]
    fn times_are_shown_as_people_read_them() {
        assert_eq!(shown(SystemTime::UNIX_EPOCH + 40 * DAY + Duration::from_secs(3661)), "1970-02-10T01:01:01Z");
        let spans = [59, 120, 7200, 172_800].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["59 s", "2 min", "2 h", "2 days"]);
    }
}
