//! HPACK (RFC 7541) as far as an `:authority` can be found and corrected in place.
//!
//! A name that refers to the dynamic table is not followed: the static table has this one, and encoders look there first.

use std::ops::Range;

/// `:authority` as a Huffman string.
const NAME_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// Its index in the static table.
const NAME_INDEX: usize = 1;

/// Huffman codes of up to 15 bits: below this, left-aligned in 32 bits, a code has that length (RFC 7541 appendix B).
const LENGTHS: [(u32, u32); 10] = [
    (0x5000_0000, 5),
    (0xb800_0000, 6),
    (0xf800_0000, 7),
    (0xfe00_0000, 8),
    (0xff40_0000, 10),
    (0xffa0_0000, 11),
    (0xffc0_0000, 12),
    (0xfff0_0000, 13),
    (0xfff8_0000, 14),
    (0xfffe_0000, 15),
];

/// The codes of '%' and '-', of six bits each.
const PERCENT: u32 = 0x15;
const DASH: u32 = 0x16;

/// Writes '-' for every '%' in the literal values of `:authority` in a block of fields. No string, and so no entry of the
/// decoder's table, changes its length. What cannot be read is left to the decoder, which says what is wrong.
pub(crate) fn correct_authorities(block: &mut [u8]) {
    let mut at = 0;
    while let Some(next) = correct_field(block, at) {
        at = next;
    }
}

/// Corrects the field at `at`; where the next begins.
fn correct_field(block: &mut [u8], at: usize) -> Option<usize> {
    let (prefix, literal) = match *block.get(at)? {
        0x80.. => (7, false),
        0x40..0x80 => (6, true),
        0x20..0x40 => (5, false),
        0x00..0x20 => (4, true),
    };
    let (index, mut at) = integer(block, at, prefix)?;
    if !literal {
        return Some(at);
    }
    let mut named = index == NAME_INDEX;
    if index == 0 {
        let (huffman, name) = string(block, at)?;
        at = name.end;
        named = &block[name] == if huffman { NAME_HUFFMAN } else { b":authority" };
    }
    let (huffman, value) = string(block, at)?;
    let end = value.end;
    match named {
        true if huffman => correct_huffman(&mut block[value]),
        true => block[value].iter_mut().filter(|byte| **byte == b'%').for_each(|byte| *byte = b'-'),
        false => {}
    }
    Some(end)
}

/// An integer whose first byte has `prefix` bits of it (section 5.1); and what follows it.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let full = (1 << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & full;
    if value < full {
        return Some((value, at + 1));
    }
    // Four more bytes are more than any length here.
    for (shift, at) in (0..28).step_by(7).zip(at + 1..) {
        let byte = *block.get(at)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Whether a string is in Huffman's code, and where its bytes are (section 5.2).
fn string(block: &[u8], at: usize) -> Option<(bool, Range<usize>)> {
    let huffman = *block.get(at)? >= 0x80;
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(length)?;
    (end <= block.len()).then_some((huffman, start..end))
}

/// Writes the code of '-' for that of '%'; longer codes than the table's stand for nothing that an authority has.
fn correct_huffman(bytes: &mut [u8]) {
    let bits = bytes.len() * 8;
    let mut at = 0;
    while at < bits {
        let window = (at..at + 32).fold(0, |window, at| window << 1 | bit(bytes, at));
        let Some((_, length)) = LENGTHS.iter().find(|(limit, _)| window < *limit) else { return };
        if *length == 6 && window >> 26 == PERCENT && at + 6 <= bits {
            for place in 0..6 {
                if (PERCENT ^ DASH) >> (5 - place) & 1 == 1 {
                    bytes[(at + place) / 8] ^= 0x80 >> ((at + place) % 8);
                }
            }
        }
        at += *length as usize;
    }
}

/// Behind the end there are ones, as the padding has them.
fn bit(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at / 8).map_or(1, |byte| u32::from(byte >> (7 - at % 8) & 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Codes of RFC 7541 appendix B, written down from there.
    const CODES: &[(char, &str)] = &[
        ('%', "010101"),
        ('-', "010110"),
        ('.', "010111"),
        ('/', "011000"),
        ('0', "00000"),
        ('1', "00001"),
        ('2', "00010"),
        ('a', "00011"),
        ('c', "00100"),
        ('e', "00101"),
        ('i', "00110"),
        ('o', "00111"),
        ('s', "01000"),
        ('t', "01001"),
        (' ', "010100"),
        ('3', "011001"),
        ('9', "011111"),
        ('=', "100000"),
        ('A', "100001"),
        ('_', "100010"),
        ('b', "100011"),
        ('d', "100100"),
        ('u', "101101"),
        (':', "1011100"),
        ('B', "1011101"),
        ('F', "1100001"),
        ('Z', "11111101"),
        ('&', "11111000"),
        ('*', "11111001"),
        ('!', "1111111000"),
        ('?', "1111111100"),
        ('+', "11111111011"),
        ('|', "11111111100"),
        ('#', "111111111010"),
        ('@', "1111111111010"),
        ('~', "1111111111101"),
        ('^', "11111111111100"),
        ('<', "111111111111100"),
        ('{', "111111111111110"),
    ];

    fn huffman(text: &str) -> Vec<u8> {
        let codes = text.chars().map(|letter| CODES.iter().find(|(known, _)| *known == letter).unwrap().1);
        let mut bits: String = codes.collect();
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
        (0..bits.len()).step_by(8).map(byte).collect()
    }

    fn with_integer(first: u8, prefix: u32, value: usize) -> Vec<u8> {
        let full = (1 << prefix) - 1;
        if value < full {
            return vec![first | u8::try_from(value).unwrap()];
        }
        let mut bytes = vec![first | u8::try_from(full).unwrap()];
        let mut rest = value - full;
        while rest >= 0x80 {
            bytes.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
            rest /= 0x80;
        }
        bytes.push(u8::try_from(rest).unwrap());
        bytes
    }

    fn string_of(text: &str, coded: bool) -> Vec<u8> {
        let bytes = if coded { huffman(text) } else { text.as_bytes().to_vec() };
        [with_integer(if coded { 0x80 } else { 0 }, 7, bytes.len()), bytes].concat()
    }

    /// A field in one of the ways to write it.
    #[derive(Clone, Debug)]
    enum Field {
        Indexed(usize),
        TableSize(usize),
        Literal { first: u8, prefix: u32, index: usize, name: &'static str, value: String, coded: bool },
    }

    impl Field {
        fn is_authority(&self) -> bool {
            matches!(self, Self::Literal { index: 1, .. } | Self::Literal { index: 0, name: ":authority", .. })
        }

        fn bytes(&self, corrected: bool) -> Vec<u8> {
            match self {
                Self::Indexed(index) => with_integer(0x80, 7, *index),
                Self::TableSize(size) => with_integer(0x20, 5, *size),
                Self::Literal { first, prefix, index, name, value, coded } => {
                    let value = if corrected { value.replace('%', "-") } else { value.clone() };
                    let name = if *index == 0 { string_of(name, false) } else { Vec::new() };
                    [with_integer(*first, *prefix, *index), name, string_of(&value, *coded)].concat()
                }
            }
        }
    }

    fn field() -> impl Strategy<Value = Field> {
        let letters: Vec<char> = CODES.iter().map(|(letter, _)| *letter).chain(['%'; 20]).collect();
        let value = prop::collection::vec(prop::sample::select(letters), 0..150);
        let value = value.prop_map(|letters| letters.into_iter().collect::<String>());
        let first = prop::sample::select(vec![(0x40, 6), (0x00, 4), (0x10, 4)]);
        let index = prop_oneof![Just(0usize), Just(1), 2usize..300];
        let name = prop::sample::select(vec![":authority", ":path", "x-%", ""]);
        let literal =
            (first, index, name, value, any::<bool>()).prop_map(|((first, prefix), index, name, value, coded)| {
                Field::Literal { first, prefix, index, name, value, coded }
            });
        prop_oneof![1 => (1usize..400).prop_map(Field::Indexed), 1 => (0usize..5000).prop_map(Field::TableSize), 4 => literal]
    }

    proptest! {
        #[test]
        fn authorities_are_corrected_and_all_else_is_as_it_was(fields in prop::collection::vec(field(), 0..12)) {
            let block = |correct: bool| {
                let bytes = fields.iter().map(|field| field.bytes(correct && field.is_authority()));
                bytes.collect::<Vec<_>>().concat()
            };
            let (mut corrected, expected) = (block(false), block(true));
            correct_authorities(&mut corrected);
            prop_assert_eq!(corrected, expected);
        }

        #[test]
        fn no_bytes_panic(mut block in prop::collection::vec(any::<u8>(), 0..200)) {
            correct_authorities(&mut block);
        }
    }

    #[test]
    fn the_rfcs_own_strings_are_read() {
        // Section C.4.1, "www.example.com", has nothing to correct.
        let rfc = [0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let mut block = rfc;
        correct_authorities(&mut block);
        assert_eq!(block, rfc);
    }

    #[test]
    fn a_name_in_huffmans_code_is_known() {
        let field = |value: &str| [&[0x40, 0x88][..], NAME_HUFFMAN, &string_of(value, true)].concat();
        let mut block = field("%a%%/");
        correct_authorities(&mut block);
        assert_eq!(block, field("-a--/"));
    }
}
