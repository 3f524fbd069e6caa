//! SOCKS5's conversation: what is asked is what a reader of all its bytes at once finds, and what follows is left alone.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown},
    os::unix::net::UnixStream,
};

use proxy_server::fuzzing::{Asked, socks5};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be had");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let password = b"\0\x05\x01\x02\x01\x02c1\x03tok\x05\x01\0\x03\x02c1\x01\xbbpayload";
    let known = b"\x01\x05\x02\0\x01\x05\x01\0\x01\x0a\0\0\x01\0\x50";
    let ipv6 = b"\x01\x05\x01\0\x05\x01\0\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb";
    let bind = b"\x01\x05\x01\0\x05\x02\0\x03\x01a\0\x01";
    vec![password.into(), known.into(), ipv6.into(), bind.into()]
}

/// The first byte says whether the client is known; the others are its own.
pub(crate) fn check(input: &[u8]) {
    let Some((flags, said)) = input.split_first() else { return };
    let (known, said) = (flags & 1 == 1, &said[..said.len().min(4096)]);
    let (asked, answered) = converse(said, known);
    assert!(answered.len() <= 14 && answered.first().is_none_or(|first| *first == 5), "{answered:?}");
    match (asked, read(said, known)) {
        (None, None) => {}
        (Some(Asked { host, port, user, token, ahead }), Some(expected)) => {
            assert_eq!((&host, port, &user, &token), (&expected.0, expected.1, &expected.2, &expected.3));
            assert!(expected.4.starts_with(&ahead), "what follows is the target's");
        }
        (asked, expected) => panic!("asked is {asked:?}, and {expected:?} was said"),
    }
}

/// What the hub understands and answers of a client that says all at once and then ends.
fn converse(said: &[u8], known: bool) -> (Option<Asked>, Vec<u8>) {
    let (mut client, hub) = UnixStream::pair().expect("sockets can be had");
    client.write_all(said).expect("a socket holds a few bytes");
    client.shutdown(Shutdown::Write).expect("an end can be said");
    hub.set_nonblocking(true).expect("a socket need not block");
    let asked = RUNTIME.with(|runtime| {
        runtime
            .block_on(async { socks5(tokio::net::UnixStream::from_std(hub).expect("a runtime is there"), known).await })
    });
    let mut answered = Vec::new();
    // A hub that leaves bytes unread resets the connection after its answer.
    let _ = client.read_to_end(&mut answered);
    (asked, answered)
}

type Said<'a> = (String, u16, Option<String>, Option<String>, &'a [u8]);

/// RFC 1928 and 1929 once more, over all bytes at once.
fn read(said: &[u8], known: bool) -> Option<Said<'_>> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, after) = rest.split_at_checked(count)?;
        *rest = after;
        Some(taken)
    }
    fn some(bytes: &[u8]) -> Option<Option<String>> {
        let text = String::from_utf8(bytes.to_vec()).ok()?;
        Some((!text.is_empty()).then_some(text))
    }
    let mut rest = said;
    let count = take(&mut rest, 2)?[1];
    let methods = take(&mut rest, count.into())?;
    let (mut user, mut token) = (None, None);
    if methods.contains(&2) {
        let head = take(&mut rest, 2)?;
        let name = take(&mut rest, head[1].into())?;
        let length = take(&mut rest, 1)?[0];
        let password = take(&mut rest, length.into())?;
        (user, token) = (some(name)?, some(password)?);
        if head[0] != 1 {
            return None;
        }
    } else if !known || !methods.contains(&0) {
        return None;
    }
    let [5, 1, _, kind] = *take(&mut rest, 4)? else { return None };
    let host = match kind {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(take(&mut rest, 4)?).ok()?).to_string(),
        3 => {
            let length = take(&mut rest, 1)?[0];
            String::from_utf8_lossy(take(&mut rest, length.into())?).into_owned()
        }
        4 => Ipv6Addr::from(<[u8; 16]>::try_from(take(&mut rest, 16)?).ok()?).to_string(),
        _ => return None,
    };
    let port = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
    Some((host, port, user, token, rest))
}
