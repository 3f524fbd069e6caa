//! HTTP/2 that is none, on the clients' port: the connection ends, and nothing is held for it.

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{Target, answer_to};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const WINDOW_UPDATE: u8 = 8;

/// A frame without flags.
fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[..], &[kind, 0, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn frames_that_cannot_be_end_their_connection() -> Result<()> {
    let mut target = Target::start().await?;
    let flood = [frame(HEADERS, 1, b"\x83"), frame(CONTINUATION, 1, &[0x83; 10_000]).repeat(100)].concat();
    let garbage = [
        vec![0xff; 100],
        frame(HEADERS, 1, b"\x83"),
        frame(HEADERS, 2, b"\xff\xff\xff\xff\xff\xff"),
        frame(HEADERS, 0, b"\x83"),
        frame(0, 1, b"data of nothing"),
        frame(WINDOW_UPDATE, 0, &[0x7f, 0xff, 0xff, 0xff]),
        frame(SETTINGS, 0, b"odd"),
        frame(HEADERS, 1, &[b'%'; 60_000]),
        flood,
    ];
    for entry in target.entries()? {
        let all = garbage
            .iter()
            .map(async |bytes| answer_to(&entry, &[PREFACE, &frame(SETTINGS, 0, b""), bytes].concat()).await);
        try_join_all(all).await?;
    }
    target.is_unharmed().await
}
