//! `POST /v1/backup`: the registry and the hub's CA as they are, for who may do everything.

use std::io;

use certs::Phase;
use http::StatusCode;
use jiff::Timestamp;
use registry::backup::{self, Backup};

use super::{Answered, Api, failure::failure, json};

impl Api {
    pub(super) async fn backup(&self, now: Timestamp) -> Answered {
        let (registry, authorities) = (self.registry.clone(), self.authorities.clone());
        if authorities.current().phase() != Phase::Settled {
            // Whoever is trusted by the old CA alone, which may have leaked, gets no copy of the new one.
            let message =
                "the hub's CA is being rotated; 'cluster-proxy ca rotate finish' it, or 'abort' it, first".to_owned();
            return Err(failure(StatusCode::CONFLICT, "Conflict", message));
        }
        let making = tokio::task::spawn_blocking(move || {
            let backup = Backup::of(&registry, env!("CARGO_PKG_VERSION"), authorities.read(backup::files)?, now);
            Ok::<_, io::Error>(json(StatusCode::OK, &backup.seal()))
        });
        match making.await.map_err(io::Error::from).flatten() {
            Ok(answer) => Ok(answer),
            Err(error) => {
                tracing::warn!(%error, "cannot make a backup");
                let message = "the hub cannot read its CA's files; its log says why".to_owned();
                Err(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message))
            }
        }
    }
}
