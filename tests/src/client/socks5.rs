//! The client's side of SOCKS5 (RFC 1928) with user name and password (RFC 1929).

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::DialError;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for `target` (`HOST:PORT`); a host that is no address goes as a name.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    login: Option<&(String, String)>,
) -> Result<(), DialError> {
    let method = if login.is_some() { LOGIN } else { NO_LOGIN };
    stream.write_all(&[VERSION, 1, method]).await?;
    stream.flush().await?;
    match [stream.read_u8().await?, stream.read_u8().await?] {
        [VERSION, chosen] if chosen == method => {}
        [VERSION, reply] => return Err(DialError::Reply { reply }),
        other => return Err(DialError::Nonsense(format!("{other:?}"))),
    }
    if let Some((user, password)) = login {
        let message = [&[LOGIN_VERSION][..], &counted(user)?, &counted(password)?].concat();
        stream.write_all(&message).await?;
        stream.flush().await?;
        let [_, reply] = [stream.read_u8().await?, stream.read_u8().await?];
        if reply != 0 {
            return Err(DialError::Reply { reply });
        }
    }
    stream.write_all(&request(target)?).await?;
    stream.flush().await?;
    read_reply(stream).await
}

fn request(target: &str) -> Result<Vec<u8>, DialError> {
    let (host, port) = target.rsplit_once(':').ok_or_else(|| unfit(target))?;
    let port: u16 = port.parse().map_err(|_| unfit(target))?;
    let mut request = vec![VERSION, CONNECT, 0];
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => request.extend([&[IPV4][..], &address.octets()].concat()),
        Ok(IpAddr::V6(address)) => request.extend([&[IPV6][..], &address.octets()].concat()),
        Err(_) => request.extend([&[NAME][..], &counted(host)?].concat()),
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

/// Reads the reply with its bound address, and not one byte further.
async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), DialError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [VERSION, reply, 0, kind] = head else { return Err(DialError::Nonsense(format!("{head:?}"))) };
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => stream.read_u8().await?.into(),
        _ => return Err(DialError::Nonsense(format!("{head:?}"))),
    };
    stream.read_exact(&mut vec![0; length + 2]).await?;
    if reply == 0 { Ok(()) } else { Err(DialError::Reply { reply }) }
}

fn counted(text: &str) -> Result<Vec<u8>, DialError> {
    let length: u8 = text.len().try_into().map_err(|_| unfit(text))?;
    Ok([&[length][..], text.as_bytes()].concat())
}

fn unfit(text: &str) -> DialError {
    DialError::Nonsense(format!("{text} cannot be said in SOCKS5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_as_names_and_addresses_as_addresses() -> Result<(), DialError> {
        assert_eq!(request("svc:80")?, [5, 1, 0, 3, 3, b's', b'v', b'c', 0, 80]);
        assert_eq!(request("1.2.3.4:258")?, [5, 1, 0, 1, 1, 2, 3, 4, 1, 2]);
        assert_eq!(request("[::1]:1")?[..4], [5, 1, 0, 4]);
        assert!(request("svc").is_err() && request("svc:70000").is_err());
        Ok(())
    }

    #[tokio::test]
    async fn the_dialogue_is_that_of_the_rfcs() -> Result<(), DialError> {
        let (mut client, mut proxy) = tokio::io::duplex(1024);
        let login = (String::from("c1"), String::from("pw"));
        proxy.write_all(&[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0, b'!']).await?;
        connect(&mut client, "svc:80", Some(&login)).await?;
        assert_eq!(client.read_u8().await?, b'!');
        drop(client);
        let mut said = Vec::new();
        proxy.read_to_end(&mut said).await?;
        assert_eq!(said, *b"\x05\x01\x02\x01\x02c1\x02pw\x05\x01\x00\x03\x03svc\x00\x50");
        Ok(())
    }

    #[tokio::test]
    async fn refusals_of_method_password_and_target_are_told_apart_by_their_reply() -> Result<(), DialError> {
        let login = (String::from("c1"), String::from("pw"));
        for (answer, expected) in
            [(&[5, 0xff][..], 0xff), (&[5, 2, 1, 1], 1), (&[5, 2, 1, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0], 4)]
        {
            let (mut client, mut proxy) = tokio::io::duplex(1024);
            proxy.write_all(answer).await?;
            let error = connect(&mut client, "svc:80", Some(&login)).await;
            assert!(matches!(error, Err(DialError::Reply { reply }) if reply == expected), "{error:?}");
        }
        Ok(())
    }
}
