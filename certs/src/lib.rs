//! Identities and certificates of hubs, agents and users.
//!
//! The hub owns one [`Authority`]. Everything that speaks TLS here speaks TLS 1.3 with a certificate under it:
//!
//! | leaf | subject | SAN | EKU |
//! |---|---|---|---|
//! | hub | CN [`HUB_SERVER_NAME`] | [`HUB_SERVER_NAME`], `localhost`, loopback, its own names | serverAuth |
//! | agent | CN `system:open-cluster-management:<cluster>:<agent>`, O `system:open-cluster-management:<cluster>` and `system:open-cluster-management:managed-clusters` | `spiffe://cluster-proxy.internal/cluster/<cluster>/agent/<agent>` | clientAuth |
//! | user | CN the user | `spiffe://cluster-proxy.internal/user/<uid>` | clientAuth |
//!
//! [`Identity::from_certificate`] is the only place where a certificate becomes a name.

mod authority;
mod bundle;
mod client_tls;
mod clock;
mod credentials;
mod distrust;
mod file;
#[cfg(test)]
mod handshake;
mod identity;
mod issue;
mod key;
mod name;
mod pin;
mod pinned_tls;
mod reload;
mod request;
mod root;
mod rotation;
mod server_tls;

pub use authority::{Authority, AuthorityError, HUB_SERVER_NAME, Phase, TRUST_DOMAIN};
pub use bundle::{BundleError, follow_roots, issuer_among, pins_in, pins_shown};
pub use client_tls::ClientTls;
pub use clock::{WrongClock, shown as shown_time, span as shown_span};
pub use credentials::{Credentials, CredentialsError, HubEntry};
pub use distrust::{Distrust, HubTls, Witness};
pub use file::{give_to_owner, guard_folder, guard_secret, write_public, write_secret};
pub use identity::{Identity, IdentityError};
pub use issue::{IssueError, Issued, SERVER_VALIDITY, ends_at, issued_at};
pub use key::{CsrError, PrivateKey, PrivateKeyError};
pub use name::{AgentName, ClusterName, GroupName, NameError, UserName, is_dns_label, is_field_text, is_host_name};
pub use pin::{FingerprintError, KeyFingerprint, Pin};
pub use pinned_tls::{PinMismatch, pinned_tls};
pub use reload::{Reload, ReloadOutcome};
pub use request::RequestError;
pub use root::certificate_blocks;
pub use rotation::{RotationError, Step};
pub use server_tls::{SelfSigned, ServerCredentials, ServerTls, TlsError, provider};
