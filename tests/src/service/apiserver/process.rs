//! A command of a container, which is a process of this machine in the pod's folder, and is killed when it is dropped.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use bytes::{Bytes, BytesMut};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::streams::{Channel, Streams};

/// Bytes of output at a time.
const PIECE: usize = 32 * 1024;

/// Runs a command to its end and gives its exit code.
pub(super) async fn run(command: &[String], folder: &Path, streams: Streams) -> io::Result<i32> {
    if streams.tty {
        super::terminal::run(command, folder, streams).await
    } else {
        piped(command, folder, streams).await
    }
}

/// Kills a process with all that it has started, unless it has ended.
#[derive(Debug)]
pub(super) struct Killed(Option<Pid>);

impl Killed {
    /// When dropped, the group that `child` leads.
    pub(super) fn group_of(child: &Child) -> Self {
        Self(child.id().and_then(|id| id.try_into().ok()).map(Pid::from_raw))
    }

    /// It has ended by itself; its number may belong to another.
    pub(super) fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // That nobody is left is as good.
            let _killed = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// The command in `folder`, which sees nothing of the caller's environment but the search path.
pub(super) fn command(program: &str, folder: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().env("HOME", folder).env("TERM", "dumb");
    command.env("PATH", crate::config::search_path().map_err(io::Error::other)?);
    command.kill_on_drop(true);
    Ok(command)
}

/// The exit code as a container's runtime tells it.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

async fn piped(words: &[String], folder: &Path, streams: Streams) -> io::Result<i32> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no command was given"))?;
    let mut command = command(program, folder)?;
    command.args(arguments).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut killed = Killed::group_of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let Streams { stdin: input, output, .. } = streams;
    let ended = async {
        let (stdout, stderr) =
            tokio::join!(forward(stdout, Channel::Stdout, &output), forward(stderr, Channel::Stderr, &output));
        stdout.and(stderr)?;
        child.wait().await
    };
    let status = tokio::select! {
        status = ended => status?,
        never = feed(stdin, input) => match never {},
    };
    killed.ended();
    Ok(exit_code(status))
}

/// Writes what comes to a command; a command that reads no more still runs.
async fn feed(stdin: Option<ChildStdin>, mut input: mpsc::Receiver<Bytes>) -> std::convert::Infallible {
    if let Some(mut stdin) = stdin {
        while let Some(bytes) = input.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                break;
            }
        }
    }
    drop(input);
    std::future::pending().await
}

async fn forward(
    from: Option<impl AsyncRead + Unpin>,
    channel: Channel,
    output: &mpsc::Sender<(Channel, Bytes)>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        if from.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        output.send((channel, piece.freeze())).await.map_err(io::Error::other)?;
    }
}
