//! Clients that begin and do not go on, on every TCP port and the Unix socket: each is let go at its deadline.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use tests::Client;
use tests::client::{Connection, Entry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::{BOUND, Target, ended, shown};

/// Beginnings of what the clients' port speaks.
const BEGINNINGS: [&[u8]; 14] = [
    b"",
    b"C",
    b"CONNECT h:80 HTTP/1.1\r\n",
    b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n",
    b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r",
    b"GET http://h/ HTTP/1.1\r\nHost",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /second HTTP/1.1\r\nHo",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhalf",
    &[5],
    &[5, 2, 2],
    &[5, 1, 2],
    &[5, 1, 2, 1, 1, b'a'],
    &[5, 1, 2, 1, 1, b'a', 1, b'b', 5, 1],
    &[5, 1, 2, 1, 1, b'a', 1, b'b', 5, 1, 0, 3, 200, b'h'],
];

/// HTTP/2's preface and its first frame, SETTINGS.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A call of konnectivity's, whose first packet does not come.
const CALL: &[u8] = b"\0\0\x2a\x01\x04\0\0\0\x01\x83\x86\x04\x13/ProxyService/Proxy\x0f\x10\x10application/grpc";

/// A TLS record of a handshake with a ClientHello that is announced and does not come.
const HALF_A_HANDSHAKE: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[tokio::test]
async fn a_client_that_begins_and_stays_is_let_go_at_its_deadline() -> Result<()> {
    let mut target = Target::start().await?;
    let (half, call) = ([HTTP2, &CALL[..20]].concat(), [HTTP2, CALL].concat());
    let mut held = Vec::new();
    for entry in target.entries()? {
        for beginning in BEGINNINGS {
            held.push(begin(entry.clone(), beginning));
        }
        for beginning in [&HTTP2[..5], &HTTP2[..24], HTTP2, &half] {
            held.push(begin(entry.clone(), beginning));
        }
    }
    let [plain, tls, _] = target.entries()?;
    // Who calls over the Unix socket is somebody, and may rest.
    held.extend([begin(plain.clone(), &call), begin(tls, &call)]);
    for handshake in [&HALF_A_HANDSHAKE[..1], HALF_A_HANDSHAKE] {
        held.push(begin(plain.clone(), handshake));
        // The API's port is TLS too, once one does not speak it.
        held.push(begin(Entry::Plain(target.hub.addresses().api), handshake));
    }
    held.push(begin(Entry::Plain(target.hub.addresses().api), b""));
    for beginning in [&b""[..], b"GET /v1/status HTTP/1.1\r\nHo", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        held.push(begin(target.api()?, beginning));
        held.push(begin(target.metrics(), beginning));
    }
    try_join_all(held).await?;
    target.is_unharmed().await
}

#[tokio::test]
async fn a_client_that_drips_does_not_win_time() -> Result<()> {
    let mut target = Target::start().await?;
    let request = b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n";
    let socks5 = [&[5, 1, 2, 1, 255][..], &[b'a'; 255]].concat();
    let second = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /second HTTP/1.1\r\nHost: h\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    let mut drips = Vec::new();
    for entry in target.entries()? {
        for bytes in [&request[..], &socks5, second] {
            drips.push(drip(entry.clone(), bytes.to_vec()));
        }
    }
    drips.push(drip(Entry::Plain(target.hub.addresses().proxy), [HALF_A_HANDSHAKE, &[1; 400]].concat()));
    drips.push(drip(Entry::Plain(target.hub.addresses().api), [HALF_A_HANDSHAKE, &[1; 400]].concat()));
    drips.push(drip(target.metrics(), [&b"GET /metrics HTTP/1.1\r\nX: "[..], &[b'x'; 400]].concat()));
    drips.push(drip(target.api()?, [&b"GET /v1/status HTTP/1.1\r\nX: "[..], &[b'x'; 400]].concat()));
    try_join_all(drips).await?;
    target.is_unharmed().await
}

#[tokio::test]
async fn a_client_that_begins_and_leaves_is_forgotten() -> Result<()> {
    let mut target = Target::start().await?;
    let mut entries = target.entries()?.to_vec();
    entries.extend([target.api()?, target.metrics()]);
    for entry in entries {
        for beginning in BEGINNINGS {
            let mut client = Client::new(entry.clone()).enter().await?;
            client.write_all(beginning).await?;
            client.shutdown().await?;
            ended(client).await.with_context(|| format!("{} over {entry:?}", shown(beginning)))?;
            // And without a farewell.
            let mut client = Client::new(entry.clone()).enter().await?;
            client.write_all(beginning).await?;
            drop(client);
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn a_thousand_silent_clients_keep_nobody_out() -> Result<()> {
    tests::allow_open_files(4_000)?;
    let mut target = Target::start().await?;
    let [plain, ..] = target.entries()?;
    let mut silent: Vec<Connection> = Vec::new();
    for _ in 0..1_000 {
        silent.push(Client::new(plain.clone()).enter().await?);
    }
    target.serves().await?;
    try_join_all(silent.into_iter().map(ended)).await?;
    target.is_unharmed().await
}

#[tokio::test]
async fn a_client_that_asks_and_does_not_listen_is_let_go() -> Result<()> {
    let mut target = Target::start().await?;
    let mut entries = target.entries()?.to_vec();
    entries.extend([target.api()?, target.metrics()]);
    try_join_all(entries.into_iter().map(ask_without_listening)).await?;
    target.is_unharmed().await
}

/// Sends a beginning and waits for the hub to end the connection.
async fn begin(entry: Entry, beginning: &[u8]) -> Result<()> {
    let what = || format!("{} over {entry:?}", shown(beginning));
    let mut client = Client::new(entry.clone()).enter().await.with_context(what)?;
    client.write_all(beginning).await?;
    client.flush().await?;
    let answer = ended(client).await.with_context(what)?;
    let is_head = beginning.starts_with(b"CONNECT");
    ensure!(!is_head || answer.starts_with(b"HTTP/1.1 408 "), "{}: {}", what(), shown(&answer));
    Ok(())
}

/// Sends a byte at a time, more often than any deadline, until the hub ends the connection.
async fn drip(entry: Entry, bytes: Vec<u8>) -> Result<()> {
    let what = || format!("{} over {entry:?}", shown(&bytes));
    let client = Client::new(entry.clone()).enter().await.with_context(what)?;
    let (mut reader, mut writer) = tokio::io::split(client);
    let dripping = async {
        for byte in &bytes {
            if writer.write_all(&[*byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            sleep(Duration::from_millis(150)).await;
        }
        std::future::pending::<()>().await;
    };
    let ending = async {
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = reader.read_to_end(&mut answer).await;
    };
    let ended = async {
        tokio::select! { () = dripping => {}, () = ending => {} }
    };
    timeout(BOUND, ended).await.with_context(|| format!("{} is held", what()))
}

/// Asks on and on without reading an answer, until the hub breaks the connection off.
async fn ask_without_listening(entry: Entry) -> Result<()> {
    let mut client = Client::new(entry.clone()).enter().await?;
    let asking = async {
        let requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
        while client.write_all(&requests).await.is_ok() && client.flush().await.is_ok() {}
    };
    timeout(BOUND, asking).await.with_context(|| format!("{entry:?} holds a client that does not listen"))
}
