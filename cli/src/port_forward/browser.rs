//! The user's browser: opened at a forwarded port.

use std::{ffi::OsString, io, net::SocketAddr, path::Path, process::Stdio};

use tokio::process::Command;

use crate::{
    config,
    failure::{Exit, Failure},
};

/// Why no browser was opened. The ports are there all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrowserError {
    #[error("{} does not start", .program.display())]
    Start { program: OsString, source: io::Error },
    #[error("{} ended with an error", .program.display())]
    Ended { program: OsString },
}

#[cfg(target_os = "macos")]
const OPENER: &str = "open";
#[cfg(not(target_os = "macos"))]
const OPENER: &str = "xdg-open";

/// Opens the address in the browser that `BROWSER` names, or in the desktop's. Ends with the program, which may be the
/// browser itself.
pub(crate) async fn open(url: &str) -> Result<(), BrowserError> {
    let (program, arguments) = command(config::browser().as_deref(), url);
    let mut command = Command::new(&program);
    // What it says is not the command's; it goes on when the command ends.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(BrowserError::Ended { program }),
        Err(source) => Err(BrowserError::Start { program, source }),
    }
}

/// As a person would type it.
pub(crate) fn url(local: SocketAddr, remote: u16) -> String {
    let scheme = if remote == 443 { "https" } else { "http" };
    if local.ip().is_loopback() || local.ip().is_unspecified() {
        format!("{scheme}://localhost:{}", local.port())
    } else {
        format!("{scheme}://{local}")
    }
}

/// `BROWSER` is a list of commands, in which `%s` is the address (as xdg-open reads it); the first counts.
fn command(browser: Option<&Path>, url: &str) -> (OsString, Vec<String>) {
    let list = browser.and_then(Path::to_str).unwrap_or_default();
    let mut words = list.split(':').next().unwrap_or_default().split_whitespace();
    let Some(program) = words.next() else { return (OPENER.into(), vec![url.to_owned()]) };
    let mut arguments: Vec<String> = words.map(|word| word.replace("%s", url)).collect();
    if !list.contains("%s") {
        arguments.push(url.to_owned());
    }
    (program.into(), arguments)
}

impl From<BrowserError> for Failure {
    fn from(error: BrowserError) -> Self {
        Self::new(Exit::Other, error).next("name a browser in BROWSER, or open the address by hand")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_that_people_type() {
        let url = |address: &str, remote| url(address.parse().unwrap(), remote);
        assert_eq!(url("127.0.0.1:3000", 80), "http://localhost:3000");
        assert_eq!(url("[::1]:3000", 443), "https://localhost:3000");
        assert_eq!(url("0.0.0.0:1", 80), "http://localhost:1");
        assert_eq!(url("10.0.0.1:1", 80), "http://10.0.0.1:1");
    }

    #[test]
    fn the_browser_is_the_users_choice() {
        let words = |browser: Option<&str>| {
            let (program, arguments) = command(browser.map(Path::new), "URL");
            format!("{} {}", program.display(), arguments.join(" "))
        };
        assert_eq!(words(None), format!("{OPENER} URL"));
        assert_eq!(words(Some("firefox")), "firefox URL");
        assert_eq!(words(Some("w3m -o a:links")), "w3m -o a URL");
        assert_eq!(words(Some("x --app=%s")), "x --app=URL");
    }
}
