//! What a check may cost: time in proportion to its input; and inputs that repeat a part of themselves, to show what does not.

use std::{borrow::Cow, fs, time::Duration};

/// Longest input that [`grown`] makes.
const LONGEST: usize = 80 * 1024;

/// From here on time is measured.
const LONG: usize = 8 * 1024;

/// What any input may take, and a byte of it: instrumented code in a debug build has a tenth of this.
const ALWAYS: Duration = Duration::from_millis(200);
const PER_BYTE: Duration = Duration::from_micros(5);

/// First byte of an input that repeats a part of itself. No text begins with it.
pub(crate) const REPEATS: u8 = 0xff;

/// `[REPEATS, start, length, power, body…]` stands for the body with `body[start..][..length]` 2^power times, so that a
/// fuzzer's few bytes show what is not linear. Any other input stands for itself.
pub(crate) fn grown(input: &[u8]) -> Cow<'_, [u8]> {
    let [REPEATS, start, length, power, body @ ..] = input else { return input.into() };
    let start = usize::from(*start).min(body.len());
    let (before, rest) = body.split_at(start);
    let (unit, after) = rest.split_at(usize::from(*length).min(rest.len()));
    let room = LONGEST.saturating_sub(body.len()) / unit.len().max(1);
    let times = (1 << (power % 18)).min(room + 1);
    [before, &unit.repeat(times), after].concat().into()
}

/// A seed that [`grown`] makes long, and a fuzzer longer: `unit` 2048 times between `before` and `after`.
pub(crate) fn repeated(before: &str, unit: &str, after: &str) -> Vec<u8> {
    let short = |text: &str| u8::try_from(text.len()).expect("a seed is short");
    let head = [REPEATS, short(before), short(unit), 11];
    [&head, before.as_bytes(), unit.as_bytes(), after.as_bytes()].concat()
}

/// What `work` makes of an input of `length` bytes, in time that is in proportion to them.
pub(crate) fn bounded<T>(length: usize, work: impl FnOnce() -> T) -> T {
    if length < LONG {
        return work();
    }
    let before = processor_time();
    let made = work();
    let spent = processor_time().saturating_sub(before);
    let bound = ALWAYS + PER_BYTE * u32::try_from(length).unwrap_or(u32::MAX);
    assert!(spent <= bound, "{length} bytes took {spent:?} of the processor, and {bound:?} is their share");
    made
}

/// What this thread has had of a processor, whoever else wanted it; the first number of /proc/thread-self/schedstat.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_repeated_within_bounds() {
        assert_eq!(*grown(b"text"), *b"text");
        assert_eq!(*grown(&[REPEATS, 1, 2, 1, b'a', b'b', b'c', b'd']), *b"abcbcd");
        assert_eq!(*grown(&[REPEATS, 9, 9, 9]), *b"");
        assert_eq!(grown(&repeated("a", "bcdef", "g")).len(), 2 + 5 * 2048);
        let longest = [&[REPEATS, 0, 3, 17], &b"abc"[..]].concat();
        assert!((LONGEST - 3..=LONGEST).contains(&grown(&longest).len()));
    }

    #[test]
    #[should_panic(expected = "of the processor")]
    fn what_is_not_linear_is_seen() {
        bounded(LONG, || while processor_time() < ALWAYS * 3 {});
    }
}
