//! What a health port answers to `/metrics`, `/healthz` and `/readyz`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use prometheus::{Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Health<R> {
    pub metrics: Registry,
    /// Cancelled when the process stops: it is not ready any more.
    pub stopping: CancellationToken,
    /// Whether it is ready, with what is to be said about that.
    pub ready: R,
}

impl<R: Fn() -> Result<String, String>> Health<R> {
    /// The answer to who asks for `path`.
    pub fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/metrics" => match TextEncoder::new().encode_to_string(&self.metrics.gather()) {
                Ok(text) => plain(StatusCode::OK, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")),
            },
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" if self.stopping.is_cancelled() => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => match (self.ready)() {
                Ok(text) => plain(StatusCode::OK, text),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            _ => plain(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
        }
    }
}

/// An answer that is text.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    // The version is that of Prometheus' text format; other readers pass over it.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_what_the_process_says_until_it_stops() {
        let ready = |ready: Result<&str, &str>| ready.map(str::to_owned).map_err(str::to_owned);
        let health =
            |word| Health { metrics: Registry::new(), stopping: CancellationToken::new(), ready: move || ready(word) };
        let status = |word, path| health(word).answer(path).status().as_u16();
        assert_eq!([Ok("ok\n"), Err("no\n")].map(|word| status(word, "/readyz")), [200, 503]);
        assert_eq!(["/healthz", "/metrics", "/"].map(|path| status(Err("no\n"), path)), [200, 200, 404]);
        let stopping = health(Ok("ok\n"));
        stopping.stopping.cancel();
        assert_eq!(
            (stopping.answer("/readyz").status().as_u16(), stopping.answer("/healthz").status().as_u16()),
            (503, 200)
        );
    }
}
