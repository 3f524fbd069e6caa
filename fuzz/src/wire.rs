//! The tunnel's messages: what was understood is understood again, frames do not hang on how they arrive, and exports are tame.

use tunnel::{
    AgentMessage, Export, MAX_EXPORTS, MESSAGE_LIMIT,
    fuzzing::{Kind, agent_message, frames},
    within_limits,
};

use crate::cost::{bounded, grown};

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let export: &[u8] =
        b"\x0a\x04node\x12\x01h\x18\x8c\x47\x22\x04http\x2a\x08/metrics\x32\x03job\x3a\x09\x0a\x04team\x12\x01a";
    let export = [&[0x22, export.len().try_into().expect("a seed is short")], export].concat();
    let hello =
        [&[0x0a, (7 + export.len()).try_into().expect("a seed is short")], &b"\x0a\x050.1.0"[..], &export].concat();
    let messages: [&[u8]; 9] = [
        b"\x08\x01\x12\x01h\x18\x50\x20\x88\x27\x2a\x01u\x32\x02ab\x38\x80\x20\x42\x0b\x0a\x01u\x12\x01g\x1a\x03\x0a\x01k",
        b"\x0a\x0a\x0a\x08[::1]:80",
        b"\x12\x06\x08\x02\x12\x02no",
        &hello,
        b"\x22\x04\x08\x01\x10\x02\x22\x04\x08\x03\x10\x04",
        b"\x12\x04\x0a\x02ab",
        b"\x0a\x05token\x12\x02c1\x1a\x02a1\x22\x01x\x2a\x01v",
        b"\x0a\x04\x0a\x02c1",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ];
    let framed = |message: &[u8]| [&[0, 0, 0, message.len().try_into().expect("a seed is short")], message].concat();
    let mut seeds: Vec<Vec<u8>> = messages.map(|message| [&[5], &framed(message)[..]].concat()).into();
    seeds.push([&[0], &messages.map(framed).concat()[..]].concat());
    seeds.push([&[0xff, 5, 2, 13, 99][..], b"\0\0\x40\0", b"\x22\0"].concat());
    seeds.push([&[0xff, 10, 2, 13, 99][..], b"\0\0\x40\x04", b"\x0a\x80\x80\x01\x22", b"\x22\0"].concat());
    seeds
}

/// The first byte says in which pieces the frames arrive.
pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Some((size, stream)) = input.split_first() else { return };
    let (messages, held, broken) = bounded(stream.len(), || frames([stream]));
    let in_pieces = bounded(stream.len(), || frames(stream.chunks(usize::from(*size) + 1)));
    assert!(in_pieces.0 == messages && in_pieces.2 == broken, "frames hang on how they arrive");
    assert!(in_pieces.1 <= MESSAGE_LIMIT + 4 + usize::from(*size), "{} bytes are held", in_pieces.1);
    let sum: usize = messages.iter().map(|message| message.len() + 4).sum();
    // A length that was read is not held.
    assert!(broken || [0, 4].contains(&(stream.len() - sum - held)), "every byte is in a frame");
    for message in messages {
        assert!(message.len() <= MESSAGE_LIMIT);
        bounded(message.len(), || check_message(&message));
    }
}

fn check_message(message: &[u8]) {
    for kind in Kind::ALL {
        let Some(frame) = kind.again(message) else { continue };
        let (length, again) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize, again.len());
        // A value below zero in an enumeration is five bytes or ten.
        assert!(again.len() <= 2 * message.len(), "{kind:?}: {} bytes are {}", message.len(), again.len());
        assert_eq!(kind.again(again).as_ref(), Some(&frame), "{kind:?}");
    }
    match agent_message(message) {
        Some(AgentMessage::Hello(hello)) => check_exports(&hello.exports),
        Some(AgentMessage::Exports(exports)) => check_exports(&exports.items),
        Some(AgentMessage::Renew(_) | AgentMessage::Drain(_) | AgentMessage::Trusts(_)) | None => {}
    }
}

/// What the hub keeps of an agent's exports can neither pass for another's nor be anything but a service to scrape.
fn check_exports(exports: &[Export]) {
    let kept = within_limits(exports);
    assert!(kept <= exports.len().min(MAX_EXPORTS));
    for export in exports[..kept].iter().filter(|export| export.check().is_ok()) {
        assert!((1..=65_535).contains(&export.port) && matches!(&*export.scheme, "http" | "https"));
        let host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        assert!(!export.host.is_empty() && export.host.bytes().all(host), "{:?}", export.host);
        assert!(export.metrics_path.starts_with('/') && !export.metrics_path.contains(['?', '#', ' ', '\n', '"']));
        for name in export.labels.keys() {
            assert!(!matches!(&**name, "cluster" | "set" | "job") && !name.starts_with("__"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        }
    }
}
