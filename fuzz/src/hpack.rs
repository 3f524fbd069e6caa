//! The authorities of konnectivity's requests: only '%' in them becomes '-', nothing moves, and all else stays byte for byte.

use proxy_server::fuzzing::{correct_authorities, with_authorities_corrected};

use crate::cost::{bounded, grown};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// More than the filter may hold back: the longest fields that it corrects.
const HELD: usize = 64 * 1024;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let settings = b"\0\0\0\x04\0\0\0\0\0".as_slice();
    let plain = b"\0\0\x0d\x01\x04\0\0\0\x01\x83\x41\x07%2Fa%2F\x04\x02/%";
    let cut = b"\0\0\x04\x01\x08\0\0\0\x01\x01\x83\x41%\0\0\x02\x09\x04\0\0\0\x01\x02%";
    let named = b"\0\0\x1a\x01\x24\0\0\0\x01\0\0\0\0\x10\0\x0a:authority\x03%a%\x0f\x0d\x01%";
    let huffman = b"\0\0\x0e\x01\x04\0\0\0\x01\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let percents = b"\0\0\x0e\x01\x04\0\0\0\x01\x41\x83\x55\x55\x55\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f\x81\x57";
    let data = b"\0\0\x03\0\x01\0\0\0\x01%%%";
    let frames = [settings, plain, cut, named, huffman, percents, data];
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| [&[7], *frame].concat()).collect();
    seeds.push([&[1], &frames.concat()[..]].concat());
    seeds.push([&[0xff, 1, 12, 9, 200][..], b"\0\0\x03\x09\0\0\0\0\x01%%%"].concat());
    seeds.push([&[0xff, 10, 12, 13, 200][..], b"\0\x01\0\x01\0\0\0\0\x01", b"\0\0\x03\x09\0\0\0\0\x01%%%"].concat());
    seeds
}

/// The first byte says in which pieces the others arrive.
pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Some((size, frames)) = input.split_first() else { return };
    block(frames);
    let came = [PREFACE, frames].concat();
    let passed = bounded(came.len(), || with_authorities_corrected([&came[..]]));
    let pieces = came.chunks(usize::from(*size) + 1);
    assert!(bounded(came.len(), || with_authorities_corrected(pieces)) == passed, "the pieces do not matter");
    assert!(passed.len() <= came.len() && came.len() - passed.len() <= HELD, "{} are held", came.len() - passed.len());
    let mut others: Vec<Option<u8>> = came.iter().copied().map(Some).collect();
    without_fields(&mut others[PREFACE.len()..]);
    for (at, (came, passed)) in others.iter().zip(&passed).enumerate() {
        assert!(came.is_none_or(|came| came == *passed), "byte {at} is {passed:#x} for {came:?}");
    }
    if passed.len() == came.len() {
        assert!(with_authorities_corrected([&passed[..]]) == passed, "nothing is corrected twice");
    }
}

/// Takes out the payloads of HEADERS and CONTINUATION, where bytes may change.
fn without_fields(bytes: &mut [Option<u8>]) {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_at_mut_checked(HEAD) {
        let number = |at: usize| head[at].map_or(0, usize::from);
        let length = number(0) << 16 | number(1) << 8 | number(2);
        let (payload, next) = after.split_at_mut(length.min(after.len()));
        if matches!(head[3], Some(1 | 9)) {
            payload.fill(None);
        }
        rest = next;
    }
}

/// A block of fields by itself: what a decoder finds in it is what it found before, but for the authorities.
fn block(came: &[u8]) {
    let mut passed = came.to_vec();
    bounded(came.len(), || correct_authorities(&mut passed));
    let (mut before, mut after) = (came, &passed[..]);
    while let (Some(field), at) = (Field::take(&mut before), before.len()) {
        assert_eq!(Field::take(&mut after).map(|field| field.name), Some(field.name));
        assert_eq!(after.len(), at, "the next field begins elsewhere");
        let is_authority = match field.name {
            Name::Indexed(index) => index == 1,
            Name::Said(false, name) => name == b":authority",
            Name::Said(true, name) => name == b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f",
        };
        let end = came.len() - at;
        let range = end - field.value.len()..end;
        let expected = match (is_authority, field.huffman) {
            (true, true) => continue,
            (true, false) => field.value.iter().map(|byte| if *byte == b'%' { b'-' } else { *byte }).collect(),
            (false, _) => field.value.to_vec(),
        };
        assert_eq!(passed[range], expected);
    }
    assert_eq!(before, after, "what no decoder reads stays");
    let mut again = passed.clone();
    correct_authorities(&mut again);
    assert_eq!(again, passed, "nothing is corrected twice");
}

struct Field<'a> {
    name: Name<'a>,
    huffman: bool,
    value: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Name<'a> {
    Indexed(usize),
    /// Whether in Huffman's code, and the bytes.
    Said(bool, &'a [u8]),
}

impl<'a> Field<'a> {
    /// The next field of a block (RFC 7541 section 6); indexed ones have no value.
    fn take(block: &mut &'a [u8]) -> Option<Self> {
        let mut rest = *block;
        let first = *rest.first()?;
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(&mut rest, bits)?;
        let mut field = Self { name: Name::Indexed(index), huffman: false, value: &[] };
        if matches!(bits, 4 | 6) {
            if index == 0 {
                let (huffman, name) = string(&mut rest)?;
                field.name = Name::Said(huffman, name);
            }
            (field.huffman, field.value) = string(&mut rest)?;
        }
        *block = rest;
        Some(field)
    }
}

/// An integer of RFC 7541 section 5.1; the longest of h2, which reads the fields afterwards, has five bytes.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let full = (1 << bits) - 1;
    let mut value = usize::from(rest.split_off_first()? & u8::try_from(full).ok()?);
    if value < full {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *rest.split_off_first()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let huffman = *rest.first()? >= 0x80;
    let length = integer(rest, 7)?;
    Some((huffman, rest.split_off(..length)?))
}
