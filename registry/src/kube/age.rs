//! The age of things, rounded for people exactly as kubectl rounds it.

use jiff::{SignedDuration, Timestamp};

/// How long ago the RFC 3339 `time` was: `<unknown>` when absent, `<invalid>` when no time or in the future.
pub fn since(time: Option<&str>, now: Timestamp) -> String {
    match time {
        None | Some("") => "<unknown>".to_owned(),
        Some(time) => match time.parse::<Timestamp>() {
            Ok(time) => human(now.duration_since(time)),
            Err(_) => "<invalid>".to_owned(),
        },
    }
}

/// Two units at most, and the second only where it still matters: `119s`, `2m`, `9m59s`, `3h`, `7h59m`, `2d1h`, `3y10d`.
///
/// Up to two seconds in the future count as now, as clocks differ; more is `<invalid>`.
pub fn human(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match (seconds, minutes, hours) {
        (..120, _, _) => format!("{seconds}s"),
        (_, ..10, _) => pair(minutes, "m", seconds % 60, "s"),
        (_, ..180, _) => format!("{minutes}m"),
        (_, _, ..8) => pair(hours, "h", minutes % 60, "m"),
        (_, _, ..48) => format!("{hours}h"),
        (_, _, ..192) => pair(days, "d", hours % 24, "h"),
        (_, _, ..17_520) => format!("{days}d"),
        (_, _, ..70_080) => pair(years, "y", days % 365, "d"),
        (_, _, _) => format!("{years}y"),
    }
}

fn pair(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;

    #[test]
    fn ages_are_rounded_as_kubectl_rounds_them() {
        let table = [
            (-3, "<invalid>"),
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (10 * MINUTE - 1, "9m59s"),
            (10 * MINUTE, "10m"),
            (10 * MINUTE + 1, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + MINUTE, "3h1m"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + DAY, "2y1d"),
            (3 * YEAR, "3y"),
            (8 * YEAR - 1, "7y364d"),
            (8 * YEAR, "8y"),
            (8 * YEAR + 364 * DAY, "8y"),
            (9 * YEAR, "9y"),
        ];
        for (seconds, text) in table {
            assert_eq!(human(SignedDuration::from_secs(seconds)), text, "{seconds} s");
        }
    }

    #[test]
    fn a_missing_time_is_unknown_and_a_wrong_one_invalid() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        assert_eq!(since(None, now), "<unknown>");
        assert_eq!(since(Some("yesterday"), now), "<invalid>");
        assert_eq!(since(Some("2023-11-14T22:13:20Z"), now), "0s");
        assert_eq!(since(Some("2023-11-14T13:13:20.000000Z"), now), "9h");
        assert_eq!(since(Some("2024-11-14T13:13:20Z"), now), "<invalid>");
    }

    proptest! {
        #[test]
        fn no_age_panics(seconds in any::<i64>()) {
            human(SignedDuration::from_secs(seconds));
        }
    }
}
