//! A pod's log: what there is, or followed line by line.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use hyper::Response;
use hyper::body::Frame;
use tokio::sync::watch::Receiver;

use super::answer::{self, Body};
use super::query::Query;
use super::state::Cluster;

/// One client's place in a log.
struct Follower {
    cluster: Receiver<Cluster>,
    pod: String,
    /// Index of the next line to send.
    next: usize,
}

/// The log of `pod` so far, and with `follow=true` what comes until it is ended or the pod deleted.
pub(super) fn answer(cluster: Receiver<Cluster>, pod: &str, query: &Query) -> Response<Body> {
    if query.get("follow") != Some("true") {
        let lines = cluster.borrow().pod(pod).map(|pod| pod.log.concat());
        return answer::text(&lines.unwrap_or_default());
    }
    let follower = Follower { cluster, pod: pod.to_owned(), next: 0 };
    let lines = stream::unfold(follower, |mut follower| async move {
        let lines = follower.lines().await?;
        Some((Ok::<_, Infallible>(Frame::data(lines)), follower))
    });
    answer::streamed("text/plain", lines)
}

impl Follower {
    /// The lines not sent yet, which may be long in coming; `None` at the log's end.
    async fn lines(&mut self) -> Option<Bytes> {
        loop {
            {
                let cluster = self.cluster.borrow_and_update();
                let pod = cluster.pod(&self.pod)?;
                let lines = pod.log[self.next..].concat();
                self.next = pod.log.len();
                if !lines.is_empty() {
                    return Some(lines.into());
                }
                if pod.log_ended {
                    return None;
                }
            }
            self.cluster.changed().await.ok()?;
        }
    }
}
