//! The streams of a command: where its input comes from and its output goes, whatever carries them.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::query::Query;

/// Pieces that wait in either direction, of at most 32 KiB each.
const WAITING: usize = 4;

/// What a client has asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// The command's side.
#[derive(Debug)]
pub(super) struct Streams {
    /// Ends when the client has closed it.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    /// Sizes of the client's terminal, as JSON.
    pub(super) resize: mpsc::Receiver<Bytes>,
    pub(super) output: mpsc::Sender<(Channel, Bytes)>,
    pub(super) tty: bool,
}

/// The side of whatever carries them.
#[derive(Debug)]
pub(super) struct Carried {
    /// None when the client has closed it.
    pub(super) stdin: Option<mpsc::Sender<Bytes>>,
    pub(super) resize: mpsc::Sender<Bytes>,
    /// Ends with the command, the status being last.
    pub(super) output: mpsc::Receiver<(Channel, Bytes)>,
}

/// Where a piece of output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    Stdout,
    Stderr,
    Status,
}

impl Wanted {
    pub(super) fn parse(query: &Query) -> Self {
        let wants = |name: &str| matches!(query.get(name), Some("true" | "1"));
        let tty = wants("tty");
        // A terminal has one output.
        Self { stdin: wants("stdin"), stdout: wants("stdout"), stderr: wants("stderr") && !tty, tty }
    }

    /// Whether the client listens to that.
    pub(super) fn output(self, channel: Channel) -> bool {
        match channel {
            Channel::Stdout => self.stdout,
            Channel::Stderr => self.stderr,
            Channel::Status => true,
        }
    }

    /// Both sides.
    pub(super) fn streams(self) -> (Streams, Carried) {
        let (stdin, input) = mpsc::channel(WAITING);
        let (sizes, resize) = mpsc::channel(WAITING);
        let (output, pieces) = mpsc::channel(WAITING);
        let streams = Streams { stdin: input, resize, output, tty: self.tty };
        (streams, Carried { stdin: self.stdin.then_some(stdin), resize: sizes, output: pieces })
    }
}
