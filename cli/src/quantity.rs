//! Quantities for people: bytes, round trips and ages, each without a space so that columns stay columns.

use jiff::Timestamp;

/// `0B`, `1023B`, `1.0KiB`, `12.3GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

/// `0.25ms`, `1.5ms`, `42ms`, `1.2s`.
pub(crate) fn round_trip(milliseconds: f64) -> String {
    match milliseconds {
        short if short < 1.0 => format!("{short:.2}ms"),
        short if short < 10.0 => format!("{short:.1}ms"),
        middle if middle < 1000.0 => format!("{middle:.0}ms"),
        long => format!("{:.1}s", long / 1000.0),
    }
}

/// How long ago, in kubectl's steps: `45s`, `3m12s`, `15m`, `5h20m`, `30h`, `12d`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_unit_that_keeps_them_short() {
        let table = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (1_048_575, "1.0MiB"),
            (1 << 30, "1.0GiB"),
            (u64::MAX, "16.0EiB"),
        ];
        for (count, shown) in table {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn round_trips_keep_two_digits() {
        for (milliseconds, shown) in [(0.254, "0.25ms"), (1.49, "1.5ms"), (41.7, "42ms"), (1234.0, "1.2s")] {
            assert_eq!(round_trip(milliseconds), shown);
        }
    }

    #[test]
    fn ages_are_kubectls_and_the_future_is_now() {
        let now = Timestamp::from_second(10_000_000).unwrap();
        let table = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (900, "15m"),
            (19_200, "5h20m"),
            (108_000, "30h"),
            (1_036_800, "12d"),
        ];
        for (ago, shown) in table {
            assert_eq!(age(Timestamp::from_second(10_000_000 - ago).unwrap(), now), shown);
        }
    }
}
