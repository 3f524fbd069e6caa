//! How many files and sockets this process may have open: a scenario with a thousand connections has both their ends.

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to at least `count`, as far as the machine's hard limit allows; an error where that is too low. Processes
/// started later inherit it.
pub fn allow_open_files(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit on open files is not known")?;
    if soft >= count {
        return Ok(());
    }
    if hard < count {
        bail!(
            "{count} open files are needed and the hard limit is {hard}: raise it, e.g. with `ulimit -Hn {count}` as root"
        );
    }
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).context("the limit on open files cannot be raised")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() -> Result<()> {
        allow_open_files(1_100)?;
        assert!(getrlimit(Resource::RLIMIT_NOFILE)?.0 >= 1_100);
        Ok(())
    }
}
