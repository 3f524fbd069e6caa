//! Where audit events are written: a file that may be rotated, or standard error. A line is there once and whole, or is
//! being written: what a full disk has cut off is gone on with when there is room.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, poll},
};

/// How long the reader of a pipe may keep it full before that is told as a failure, in milliseconds.
const PIPE_TIMEOUT_MS: u16 = 500;

/// What is written to.
#[derive(Debug)]
pub(super) enum Journal {
    File(LogFile),
    Stderr,
}

/// A file that somebody may rotate.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// It ends within a line that a killed process has left.
    unended: bool,
    /// The file at the path is to be opened: another one may be there.
    stale: bool,
}

/// Lines on their way, of which a part may be written.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: String,
    written: usize,
}

impl Journal {
    /// Appends to the file at `path`, made (0600) if there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let unended = is_unended(path, &file)?;
        Ok(Self::File(LogFile { path: path.to_owned(), file, unended, stale: false }))
    }

    /// Has the next write open the file at the same path, which is another one when the log was rotated.
    pub(super) fn reopen(&mut self) {
        if let Self::File(log) = self {
            log.stale = true;
        }
    }

    /// Whether a write is due though there may be no lines.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::File(LogFile { stale: true, .. }))
    }

    /// Writes all lines. After an error, the next call goes on where this one has stopped.
    pub(super) fn write(&mut self, lines: &mut Lines) -> io::Result<()> {
        match self {
            Self::File(log) => log.write(lines),
            Self::Stderr => lines.write_to(&mut io::stderr().lock()),
        }
    }
}

impl LogFile {
    fn write(&mut self, lines: &mut Lines) -> io::Result<()> {
        // One that was removed keeps nothing for anybody.
        let removed = self.file.metadata()?;
        self.stale |= removed.nlink() == 0;
        if self.stale {
            self.open_anew(lines)?;
        }
        if self.unended && !lines.is_empty() {
            self.file.write_all(b"\n")?;
            self.unended = false;
        }
        loop {
            match lines.write_to(&mut self.file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && has_room_soon(&self.file) => {}
                written => return written,
            }
        }
    }

    /// `lines` that were cut off begin anew in another file.
    fn open_anew(&mut self, lines: &mut Lines) -> io::Result<()> {
        let new = open(&self.path)?;
        let (old, now) = (self.file.metadata()?, new.metadata()?);
        if (old.dev(), old.ino()) != (now.dev(), now.ino()) {
            self.unended = is_unended(&self.path, &new)?;
            lines.begin_line_anew();
        }
        (self.file, self.stale) = (new, false);
        Ok(())
    }
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn write_to(&mut self, to: &mut impl Write) -> io::Result<()> {
        while self.written < self.text.len() {
            match to.write(&self.text.as_bytes()[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.text.clear();
        self.written = 0;
        Ok(())
    }

    fn begin_line_anew(&mut self) {
        let before = &self.text.as_bytes()[..self.written];
        self.written = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    }
}

/// Without waiting: a pipe that nobody reads, or not fast enough, fails as a full disk does.
fn open(path: &Path) -> io::Result<File> {
    let opened =
        OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    opened.map_err(|error| {
        if error.raw_os_error() == Some(Errno::ENXIO as i32) {
            return io::Error::new(io::ErrorKind::NotConnected, "nobody reads this pipe; start its reader first");
        }
        error
    })
}

/// Whether a pipe whose reader is behind has room again in time.
fn has_room_soon(file: &File) -> bool {
    let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    poll(&mut waiting, PIPE_TIMEOUT_MS).is_ok_and(|ready| ready > 0)
}

/// Whether the file ends within a line, as a killed process may leave it. Who may append and not read takes it at its word.
fn is_unended(path: &Path, file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let Ok(mut reader) = File::open(path) else { return Ok(false) };
    let mut last = [0];
    reader.seek(SeekFrom::End(-1))?;
    reader.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// Takes this many bytes, and then there is no room.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = bytes.len().min(self.1 - self.0.len());
            self.0.extend(&bytes[..room]);
            if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(text: &str) -> Lines {
        Lines { text: text.into(), written: 0 }
    }

    #[test]
    fn a_line_that_was_cut_off_is_gone_on_with() {
        for room in 0..12 {
            let (mut disk, mut lines) = (Full(Vec::new(), room), lines("first\nsecond\n"));
            assert_eq!(lines.write_to(&mut disk).unwrap_err().kind(), io::ErrorKind::StorageFull);
            disk.1 = 100;
            lines.write_to(&mut disk).unwrap();
            assert_eq!(disk.0, b"first\nsecond\n");
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn what_was_cut_off_in_one_file_is_whole_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let mut journal = Journal::open(&path).unwrap();
        let mut lines = lines("first\nsecond\n");
        lines.written = 8;
        fs::rename(&path, &moved).unwrap();
        journal.reopen();
        journal.write(&mut lines).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_is_removed_or_cannot_be_opened_again_is_tried_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut journal = Journal::open(&path).unwrap();
        journal.write(&mut lines("first\n")).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let mut second = lines("second\n");
        assert!(journal.write(&mut second).is_err() && journal.is_stale());
        fs::remove_dir(&path).unwrap();
        journal.write(&mut second).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert!(!journal.is_stale());
    }

    #[test]
    fn a_part_of_a_line_that_a_killed_process_left_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        for (found, then) in [("", "new\n"), ("whole\n", "whole\nnew\n"), ("whole\npar", "whole\npar\nnew\n")] {
            fs::write(&path, found).unwrap();
            Journal::open(&path).unwrap().write(&mut lines("new\n")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), then);
        }
    }

    #[test]
    fn a_pipe_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Journal::open(&path).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let mut reader = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let sent = "line\n".repeat(40_000);
        let mut lines = lines(&sent);
        assert_eq!(journal.write(&mut lines).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut read = String::new();
        while journal.write(&mut lines).is_err() || !lines.is_empty() {
            // Ends where the pipe is empty.
            let _ = reader.read_to_string(&mut read);
        }
        let _ = reader.read_to_string(&mut read);
        assert!(read == sent, "{} of {} bytes", read.len(), sent.len());
    }

    #[test]
    fn a_full_disk_refuses_and_keeps_the_lines() {
        let mut journal = Journal::open(Path::new("/dev/full")).unwrap();
        let mut lines = lines("first\n");
        assert_eq!(journal.write(&mut lines).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(lines.text, "first\n");
    }
}
