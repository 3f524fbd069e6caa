//! A command with a terminal of its own, a pseudo-terminal of this machine.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::pty::openpty;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::process::{self, Killed};
use super::streams::{Channel, Streams};

/// Bytes of output at a time.
const PIECE: usize = 4096;

/// Runs a command to its end and gives its exit code. When this is dropped the command is killed, and its terminal hangs up.
pub(super) async fn run(words: &[String], folder: &Path, streams: Streams) -> io::Result<i32> {
    let pair = openpty(None, None)?;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", pair.slave.as_raw_fd()))?;
    // Our end as two files, which block a thread each while they wait: the command's end of them is killed with it.
    let input = File::from_std(pair.master.try_clone()?.into());
    let from = File::from_std(pair.master.into());
    // A session of its own, so that the terminal can be the one that controls it.
    let mut command = process::command("setsid", folder)?;
    command.arg("--ctty").args(words);
    command.stdin(Stdio::from(pair.slave.try_clone()?)).stdout(Stdio::from(pair.slave.try_clone()?));
    command.stderr(Stdio::from(pair.slave));
    let mut child = command.spawn()?;
    // Our copies of the command's end must go, or its output never ends.
    drop(command);
    let mut killed = Killed::group_of(&child);
    let Streams { stdin, resize, output, .. } = streams;
    let ended = async {
        forward(from, &output).await?;
        child.wait().await
    };
    let status = tokio::select! {
        status = ended => status?,
        never = feed(input, stdin) => match never {},
        never = follow(resize, name, folder.to_owned()) => match never {},
    };
    killed.ended();
    Ok(process::exit_code(status))
}

async fn forward(mut from: File, output: &mpsc::Sender<(Channel, Bytes)>) -> io::Result<()> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        match from.read_buf(&mut piece).await {
            // How Linux says that nobody has the other end open.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(()),
            Ok(0) => return Ok(()),
            read => drop(read?),
        }
        output.send((Channel::Stdout, piece.freeze())).await.map_err(io::Error::other)?;
    }
}

async fn feed(mut terminal: File, mut stdin: mpsc::Receiver<Bytes>) -> Infallible {
    while let Some(bytes) = stdin.recv().await {
        if terminal.write_all(&bytes).await.is_err() || terminal.flush().await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Gives the terminal each size that the client's has.
async fn follow(mut sizes: mpsc::Receiver<Bytes>, name: PathBuf, folder: PathBuf) -> Infallible {
    while let Some(bytes) = sizes.recv().await {
        for size in parse(&bytes) {
            // `stty` because setting a size is a system call without a safe wrapper in nix.
            if let Ok(mut stty) = process::command("stty", &folder) {
                stty.arg("--file").arg(&name).args(size).stdin(Stdio::null());
                // A terminal that has gone has no size.
                let _set = stty.output().await;
            }
        }
    }
    std::future::pending().await
}

/// The sizes in a piece, as `stty` wants them. SPDY's clients may send several at once.
fn parse(bytes: &[u8]) -> Vec<[String; 4]> {
    let sizes = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().flatten();
    let number = |size: &Value, name: &str| size[name].as_u64().unwrap_or(0).to_string();
    sizes
        .map(|size| ["rows".to_owned(), number(&size, "Height"), "columns".to_owned(), number(&size, "Width")])
        .collect()
}
