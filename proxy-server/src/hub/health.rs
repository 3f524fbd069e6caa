//! `/metrics`, `/healthz` and `/readyz`: plain HTTP on a port of its own, loopback unless told otherwise.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Response};
use hyper::body::Incoming;
use process::health::{Health, plain};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    api::http_port::{Body, whole},
    audit::Audit,
    gateway::browser::Browsers,
};

/// Answers who comes to the health port.
pub(crate) fn answers(
    metrics: Registry,
    stopping: CancellationToken,
    audit: Audit,
    browsers: Arc<Browsers>,
) -> impl Fn(&Request<Incoming>, SocketAddr) -> Response<Body> + Clone {
    let health = Health { metrics, stopping, ready: move || ready(&audit) };
    move |request, peer| {
        let path = request.uri().path();
        // On this machine a browser is near. Elsewhere a scraper may know the hub by any name, and health tells nothing.
        let is_asked_for = path == "/metrics" && peer.ip().to_canonical().is_loopback();
        let named = if is_asked_for { browsers.check_name(request) } else { Ok(()) };
        let answer = match named {
            Ok(()) => health.answer(path),
            Err(error) => plain(error.status(), format!("{error}\n")),
        };
        answer.map(whole)
    }
}

fn ready(audit: &Audit) -> Result<String, String> {
    if audit.refuses() {
        return Err("the audit log cannot be written, and nothing is opened meanwhile\n".into());
    }
    // A full disk must not take a hub that goes on out of service.
    Ok(if audit.is_failing() { "ok, but the audit log cannot be written\n" } else { "ok\n" }.into())
}
