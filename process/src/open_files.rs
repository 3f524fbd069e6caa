//! How many files this process may have open: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Has the kernel allow as many as it will, and gives their number. A shell's 1024 is for programs that use select(2).
pub fn raise_open_files() -> usize {
    let limit =
        getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                tracing::warn!(%error, "cannot raise the limit of open files");
                soft
            }
        });
    usize::try_from(limit.unwrap_or(1024)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let limit = raise_open_files();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
        assert_eq!(usize::try_from(hard).unwrap_or(usize::MAX), limit);
    }
}
