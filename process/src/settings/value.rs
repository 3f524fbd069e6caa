//! How values are written that settings of more than one program have.

use std::{net::SocketAddr, time::Duration};

use secrecy::SecretString;

/// What is longer is a slip of the pen, and would overflow clocks.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A length of time, which may be none.
pub fn span(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.filter(|span| *span <= LONGEST)
        .ok_or_else(|| format!("{text:?} is no length of time; write it like 30s, 10m or 1h30m"))
}

/// A length of time that is some.
pub fn positive_span(text: &str) -> Result<Duration, String> {
    span(text).and_then(|span| if span.is_zero() { Err("must be longer than nothing".into()) } else { Ok(span) })
}

/// An address to listen on.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address and port; write it like 127.0.0.1:8443 or [::]:8443"))
}

/// How many there may be of something.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

/// What is never shown.
pub fn secret(text: &str) -> Result<SecretString, String> {
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_written_as_usual() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1h30m", 5400), ("1m 30s", 90), ("0s", 0)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "-1s", "soon", "9999999999h"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(positive_span("0s").is_err() && positive_span("1ms").is_ok());
    }
}
