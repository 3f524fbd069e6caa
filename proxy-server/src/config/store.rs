//! Where the registry is kept: a file in the state folder, or etcd.

use ::store::Etcd;
use process::settings::Settings;

use super::table::{StoreKind, Table};

/// The etcd, if it is to be one. What is wrong between the settings that describe it is noted.
pub(super) fn resolve(table: &Table, settings: &mut Settings) -> Option<Etcd> {
    let Table { store, etcd_endpoint, etcd_ca, etcd_cert, etcd_key, etcd_prefix, .. } = table;
    if *store == StoreKind::Redb {
        let described = ["etcd-endpoint", "etcd-ca", "etcd-cert", "etcd-key", "etcd-prefix"];
        if described.iter().any(|name| settings.is_given(name)) && !settings.is_wrong("store") {
            settings.reject("--store: etcd is described but not used; add --store etcd");
        }
        return None;
    }
    settings.demand("etcd-endpoint", "name at least one, like https://etcd-0:2379");
    for endpoint in etcd_endpoint {
        // Not shown: it is a secret.
        if endpoint.contains('@') {
            settings
                .reject("--etcd-endpoint: a user and a password in it are not taken; use --etcd-cert and --etcd-key");
        } else if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            settings.reject(format!("--etcd-endpoint: {endpoint:?}: must begin with http:// or https://"));
        }
    }
    if etcd_endpoint.iter().any(|endpoint| endpoint.starts_with("https://")) {
        settings.demand("etcd-ca", "an https endpoint needs the CA of etcd's certificate");
    }
    if etcd_cert.is_some() {
        settings.demand("etcd-key", "--etcd-cert needs its key");
    }
    if etcd_key.is_some() {
        settings.demand("etcd-cert", "--etcd-key needs its certificate");
    }
    Some(Etcd {
        endpoints: etcd_endpoint.clone(),
        ca: etcd_ca.clone(),
        identity: etcd_cert.clone().zip(etcd_key.clone()),
        prefix: etcd_prefix.clone().unwrap_or_else(|| Etcd::PREFIX.to_owned()),
    })
}
