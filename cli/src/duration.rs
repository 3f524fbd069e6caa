//! Durations on the command line: `90s`, `1h`, `365d`, `1h30m`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// A duration of at least a second; a day has 24 hours. For clap, so the error is a sentence.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "write a duration like 90s, 15m, 1h or 365d";
    let span: Span = text.parse().map_err(|_| WRONG)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| WRONG)?;
    match Duration::try_from(duration) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        _ => Err("the duration must be at least a second".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("365d", 31_536_000)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_how_to_write_one() {
        for text in ["", "1", "soon", "1y", "0s", "-1h", "10ms", "9999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
