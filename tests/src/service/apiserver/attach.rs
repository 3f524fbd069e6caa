//! The main process of a pod as `attach` meets it: it logs each line that it reads, and writes what is logged.

use std::sync::Arc;

use bytes::Bytes;

use super::state::State;
use super::streams::{Channel, Streams};

/// Attaches to a pod until its log has ended or the pod is deleted.
pub(super) async fn run(state: Arc<State>, pod: &str, streams: Streams) {
    let Streams { mut stdin, output, .. } = streams;
    let mut cluster = state.watch();
    let mut next = cluster.borrow().pod(pod).map_or(0, |pod| pod.log.len());
    let read = async {
        let mut line = Vec::new();
        while let Some(bytes) = stdin.recv().await {
            for byte in bytes {
                match byte {
                    b'\n' => state.log(pod, &String::from_utf8_lossy(&std::mem::take(&mut line))),
                    byte => line.push(byte),
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let write = async {
        loop {
            let (lines, ended) = {
                let cluster = cluster.borrow_and_update();
                let Some(pod) = cluster.pod(pod) else { return };
                let lines = pod.log.get(next..).unwrap_or_default().concat();
                next = pod.log.len();
                (lines, pod.log_ended)
            };
            if !lines.is_empty() && output.send((Channel::Stdout, Bytes::from(lines))).await.is_err() {
                return;
            }
            if ended || cluster.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
