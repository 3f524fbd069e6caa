//! A join's progress on standard error: a spinner on a terminal, lines otherwise.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::join::JoinProgress;

/// Shows what a join is doing; says nothing twice.
#[derive(Debug)]
pub struct ProgressDisplay {
    spinner: Option<ProgressBar>,
    said: Vec<String>,
}

impl ProgressDisplay {
    /// For the process' standard error.
    pub fn new() -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Self { spinner, said: Vec::new() }
    }

    /// Shows the next step.
    pub fn show(&mut self, progress: &JoinProgress) {
        let (text, lasting) = sentence(progress);
        // A hub that is away is reported once, not at every attempt.
        let new = !self.said.contains(&text);
        match &self.spinner {
            Some(spinner) if lasting && new => spinner.println(&text),
            Some(spinner) => spinner.set_message(text.clone()),
            None if new => eprintln!("{text}"),
            None => {}
        }
        if new {
            self.said.push(text);
        }
    }

    /// Takes the spinner away.
    pub fn finish(self) {
        if let Some(spinner) = self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Default for ProgressDisplay {
    fn default() -> Self {
        Self::new()
    }
}

/// What to say, and whether it should stay on the screen.
fn sentence(progress: &JoinProgress) -> (String, bool) {
    match progress {
        JoinProgress::Connecting { hub } => (format!("connecting to {hub}"), false),
        JoinProgress::Waiting { cluster, agent, key } => (
            format!(
                "waiting for the hub's admin to run: cluster-proxy accept {cluster}/{agent}\nkey of this agent: {key}"
            ),
            true,
        ),
        JoinProgress::Retrying { why } => (format!("{why}; trying again"), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_names_the_command_to_run() {
        let key = certs::PrivateKey::generate().fingerprint();
        let (cluster, agent) = ("c1".into(), "a1".parse().unwrap());
        let (text, _) = sentence(&JoinProgress::Waiting { cluster, agent, key });
        assert!(text.starts_with("waiting for the hub's admin to run: cluster-proxy accept c1/a1\n"), "{text}");
        assert!(text.ends_with(&format!("{key}")), "{text}");
    }

    #[test]
    fn nothing_is_said_twice() {
        let mut display = ProgressDisplay { spinner: None, said: Vec::new() };
        for _ in 0..3 {
            display.show(&JoinProgress::Retrying { why: "silence".into() });
        }
        assert_eq!(display.said, ["silence; trying again"]);
    }
}
