//! SOCKS5 (RFC 1928, RFC 1929) that is wrong in each of its parts.

use anyhow::{Result, ensure};
use tests::client::Entry;

use super::{Target, answer_to};

const NO_METHOD: &[u8] = &[5, 0xff];

#[tokio::test]
async fn methods_that_are_not_offered_are_refused() -> Result<()> {
    let mut target = Target::start().await?;
    for entry in target.entries()? {
        let local = matches!(entry, Entry::Unix(_));
        for greeting in [&[5, 0][..], &[5, 1, 1], &[5, 2, 1, 0x80], &[5, 1, 0xff]] {
            ensure!(answer_to(&entry, greeting).await? == NO_METHOD, "{greeting:?} over {entry:?}");
        }
        // Nobody is known without a login but by the socket's permissions.
        if !local {
            ensure!(answer_to(&entry, &[5, 1, 0]).await? == NO_METHOD, "no login over {entry:?}");
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn a_request_that_is_wrong_gets_the_reply_that_says_so() -> Result<()> {
    let mut target = Target::start().await?;
    let token = target.hub.credentials().token()?;
    let name = |length: u8, bytes: &[u8]| [&[3, length][..], bytes].concat();
    let request = |version: u8, command: u8, address: &[u8], port: u16| {
        [&[version, command, 0][..], address, &port.to_be_bytes()].concat()
    };
    let good = name(6, b"target");
    let (refused, broken_off) = (|reply: u8| vec![5, reply, 0, 1, 0, 0, 0, 0, 0, 0], Vec::new());
    let cases = [
        ("BIND", request(5, 2, &good, 80), refused(7)),
        ("UDP ASSOCIATE", request(5, 3, &good, 80), refused(7)),
        ("command 0", request(5, 0, &good, 80), refused(7)),
        ("command 255", request(5, 0xff, &good, 80), refused(7)),
        ("address type 0", request(5, 1, &[0, 1, 2, 3], 80), refused(8)),
        ("address type 2", request(5, 1, &[2, 1, 2, 3], 80), refused(8)),
        ("no name", request(5, 1, &name(0, b""), 80), refused(1)),
        ("a name that is no text", request(5, 1, &name(4, b"\xff\xfe\x00\x01"), 80), refused(1)),
        ("a name with a line break", request(5, 1, &name(4, b"a\r\nb"), 80), refused(1)),
        ("port 0", request(5, 1, &good, 0), refused(1)),
        ("version 4", request(4, 1, &good, 80), broken_off.clone()),
    ];
    for entry in target.entries()? {
        let local = matches!(entry, Entry::Unix(_));
        let (user, token) = if local { ("", "") } else { ("a", token.as_str()) };
        for (what, request, reply) in &cases {
            let conversation = [&[5, 1, 2][..], &login(user, token)?, request].concat();
            let answer = answer_to(&entry, &conversation).await?;
            let Some(answer) = answer.strip_prefix(&[5, 2, 1, 0]) else {
                // Without a cluster the Unix socket refuses the target first: no other case gets here.
                anyhow::bail!("{what} over {entry:?}: {answer:?}");
            };
            ensure!(answer == reply.as_slice(), "{what} over {entry:?}: {answer:?}");
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn a_login_that_is_wrong_is_refused() -> Result<()> {
    let mut target = Target::start().await?;
    let request = [&[5, 1, 0, 3, 6][..], b"target", &[0, 80]].concat();
    let entries = target.entries()?;
    for entry in &entries[..2] {
        for (user, password) in [("a", "wrong"), ("a", ""), ("", ""), ("a", "cpu-0123456789.x"), ("admin", "admin")] {
            let conversation = [&[5, 1, 2][..], &login(user, password)?, &request].concat();
            let answer = answer_to(entry, &conversation).await?;
            ensure!(
                answer == [5, 2, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
                "{user}:{password} over {entry:?}: {answer:?}"
            );
        }
        for (what, login) in [("version 5", vec![5, 1, b'a', 1, b'b']), ("no text", vec![1, 1, 0xff, 1, 0xff])] {
            let answer = answer_to(entry, &[&[5, 1, 2][..], &login, &request].concat()).await?;
            ensure!(answer == [5, 2], "{what}: {answer:?}");
        }
    }
    target.is_unharmed().await
}

fn login(user: &str, password: &str) -> Result<Vec<u8>> {
    let counted = |text: &str| Ok::<_, anyhow::Error>([&[u8::try_from(text.len())?][..], text.as_bytes()].concat());
    Ok([vec![1], counted(user)?, counted(password)?].concat())
}
