//! konnectivity's packets: however they are cut they mean the same, only what belongs to the open connection reaches its target.

use bytes::Bytes;
use proxy_server::fuzzing::{FuzzedEvent, FuzzedStream};

use crate::cost::{bounded, grown};

/// The number of the connection.
const OURS: i64 = 7;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let framed = |message: &[u8]| [&[0, 0, 0, 0, message.len().try_into().expect("a seed is short")], message].concat();
    let dial = framed(b"\x12\x0f\x0a\x03tcp\x12\x06c1:443\x18\x05");
    let data = framed(b"\x08\x04\x22\x06\x08\x07\x1a\x02ab");
    let other = framed(b"\x08\x04\x22\x06\x08\x08\x1a\x02ab");
    let close = framed(b"\x08\x02\x2a\x02\x08\x07");
    let cancel = framed(b"\x08\x05\x3a\x02\x08\x05");
    let talk = [&dial[..], &data, &data, &close].concat();
    let offence = [&dial[..], &other, &dial].concat();
    let mut seeds: Vec<_> = [talk, offence, close].map(|body| [&[2], &body[..]].concat()).into();
    seeds.push([&[3], &dial[..], &cancel].concat());
    seeds.push([&[0xff, 23, 15, 11, 8][..], &dial[..], &data].concat());
    // 70,000 bytes, which are passed on before they are whole.
    let long = b"\0\0\x01\x11\x7c\x08\x04\x22\xf6\xa2\x04\x08\x07\x1a\xf0\xa2\x04";
    seeds.push([&[0xff, 40, 1, 17, 200][..], &dial[..], &long[..], b"x"].concat());
    seeds
}

/// The first byte says in which frames the body comes, and whether its dial is answered at once.
pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Some((size, body)) = input.split_first() else { return };
    let answers = size.is_multiple_of(2);
    let at_once = bounded(body.len(), || heard(body, body.len().max(1), answers));
    let in_pieces = bounded(body.len(), || heard(body, usize::from(*size) + 1, answers));
    assert_eq!(at_once, in_pieces);
}

/// All that a client says, with the bytes of a connection joined.
fn heard(body: &[u8], size: usize, answers: bool) -> Vec<FuzzedEvent> {
    let mut ear = FuzzedStream::new(body.chunks(size).map(Bytes::copy_from_slice));
    let (mut all, mut joined, mut said) = (Vec::new(), Vec::new(), 0);
    let mut open = false;
    loop {
        let heard = ear.poll_event().expect("nothing is waited for");
        match &heard {
            FuzzedEvent::Dial { protocol, address, .. } => {
                assert!(
                    !open && !all.iter().any(|heard| matches!(heard, FuzzedEvent::Dial { .. })),
                    "one dial a stream"
                );
                assert!(protocol.len() + address.len() <= body.len());
                if answers {
                    ear.opened(OURS);
                    open = true;
                }
            }
            FuzzedEvent::Data(bytes) => {
                assert!(open, "nothing is connected");
                assert!(!bytes.is_empty(), "an empty piece would be an end");
                said += bytes.len();
                assert!(said <= body.len(), "bytes were made up");
                joined.extend_from_slice(bytes);
                continue;
            }
            FuzzedEvent::Close(connect_id) => assert!(!open || *connect_id == OURS, "{connect_id} is not ours"),
            FuzzedEvent::CancelDial => assert!(!open, "the dial was answered"),
            FuzzedEvent::End | FuzzedEvent::Error(_) => {}
        }
        if !joined.is_empty() {
            all.push(FuzzedEvent::Data(std::mem::take(&mut joined).into()));
        }
        if let FuzzedEvent::Error(answers) = &heard {
            let told: usize = answers.iter().map(Bytes::len).sum();
            assert!(answers.len() <= 2 && told <= 512, "{told} bytes in {} packets", answers.len());
        }
        let is_last = matches!(heard, FuzzedEvent::End | FuzzedEvent::Error(_));
        all.push(heard);
        if is_last {
            return all;
        }
    }
}
