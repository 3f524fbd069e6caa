//! The newest lines a process wrote to one stream, readable by many while it still writes.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Enough for the debug log of a scenario, bounded for one that goes wild.
const KEPT: usize = 5_000;
/// A longer line is cut into pieces of this many bytes.
const LONGEST: u64 = 64 * 1024;

/// The newest lines of one stream.
#[derive(Debug, Default)]
pub struct Lines {
    kept: VecDeque<String>,
    ended: bool,
}

impl Lines {
    /// The lines kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(String::as_str)
    }

    /// Whether the stream has ended: no line will follow.
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn to_vec(&self) -> Vec<String> {
        self.kept.iter().cloned().collect()
    }

    fn push(&mut self, line: &[u8]) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
    }
}

/// Reads `stream` to its end in a task of `readers`.
pub(super) fn follow(
    stream: impl AsyncRead + Send + Unpin + 'static,
    readers: &mut JoinSet<()>,
) -> watch::Receiver<Lines> {
    let (sender, receiver) = watch::channel(Lines::default());
    readers.spawn(async move {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // A failed read of a pipe can only mean that the other end is gone, like its end.
        while let Ok(1..) = (&mut stream).take(LONGEST).read_until(b'\n', &mut line).await {
            sender.send_modify(|lines| lines.push(&line));
            line.clear();
        }
        sender.send_modify(|lines| lines.ended = true);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(text: &'static [u8]) -> Vec<String> {
        let mut readers = JoinSet::new();
        let receiver = follow(text, &mut readers);
        readers.join_all().await;
        assert!(receiver.borrow().ended());
        receiver.borrow().to_vec()
    }

    #[tokio::test]
    async fn the_last_line_needs_no_line_feed_and_invalid_text_is_shown() {
        assert_eq!(lines_of(b"a\n\nb\xff").await, ["a", "", "b\u{fffd}"]);
    }

    #[tokio::test]
    async fn only_the_newest_lines_are_kept_and_long_ones_are_cut() {
        let many: Vec<u8> = (0..=KEPT).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let kept = lines_of(many.leak()).await;
        assert_eq!((kept.len(), kept[0].as_str()), (KEPT, "1"));
        assert_eq!(lines_of(vec![b'x'; 100_000].leak()).await.len(), 2);
    }
}
