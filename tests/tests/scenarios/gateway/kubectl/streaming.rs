//! What runs in a pod, and its bytes: exec, terminals, attach, cp and logs. Each is asked of any kubectl, whatever lies between.

use std::fs;

use anyhow::{Result, ensure};
use tests::pattern::Pattern;
use tests::service::apiserver::ApiServer;
use tests::service::half_close::Receipt;
use tests::{Kubectl, wait_until};

use super::BOUND;

/// More than any buffer on the way holds.
pub(crate) const LONG: u64 = 20 * 1024 * 1024;

/// Output, errors and the exit code come as they are.
pub(crate) async fn exec_keeps_the_exit_code(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let failed = kubectl.run(&format!("exec {pod} -- sh -c 'echo \"a  b\"; echo why >&2; exit 7'")).await?;
    ensure!(failed.stderr.starts_with("why\n"), "{failed:?}");
    let output = failed.exited_with(7)?;
    ensure!(output == "a  b\n", "{output:?}");
    let missing = kubectl.run(&format!("exec {pod} -- no-such-program")).await?;
    ensure!(!missing.status.success() && missing.stderr.contains("no-such-program"), "{missing:?}");
    Ok(())
}

/// Input comes to the command, to its last byte and its end, while output comes back.
pub(crate) async fn exec_carries_input_and_output(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let mut cat = kubectl.program(&format!("exec -i {pod} -- cat")).with_stdin().spawn()?;
    cat.write(b"question\n", BOUND).await?;
    cat.stdout_line(BOUND, "the question", |line| (line == "question").then_some(())).await?;
    cat.close_stdin();
    cat.exits_with(0, BOUND).await?;

    let input = Pattern::new(1, LONG).to_vec();
    let script = format!("exec -i {pod} -- sh -c 'sha256sum; echo ended'");
    let mut sum = kubectl.program(&script).with_stdin().spawn()?;
    sum.write(&input, BOUND).await?;
    sum.close_stdin();
    let checksum = Receipt::of(&input).checksum.to_string();
    sum.stdout_line(BOUND, "the checksum", |line| line.starts_with(&checksum).then_some(())).await?;
    sum.stdout_line(BOUND, "what comes after", |line| (line == "ended").then_some(())).await?;
    sum.exits_with(0, BOUND).await
}

/// A command that writes faster than anybody reads loses nothing.
pub(crate) async fn exec_loses_no_output(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let zeros = kubectl.run(&format!("exec {pod} -- head -c {LONG} /dev/zero")).await?;
    ensure!(zeros.status.success(), "{}", zeros.stderr);
    ensure!(zeros.stdout.len() as u64 == LONG && zeros.stdout.iter().all(|byte| *byte == 0), "{}", zeros.stdout.len());
    Ok(())
}

/// Commands that run at once have each their own bytes.
pub(crate) async fn execs_at_once_lose_nothing(kubectl: &Kubectl, pod: &str, count: u64) -> Result<()> {
    let execs = (0..count).map(async |number| -> Result<()> {
        let input = Pattern::new(number, 1_000_000 + number).to_vec();
        let mut sum = kubectl.program(&format!("exec -i {pod} -- sha256sum")).with_stdin().spawn()?;
        sum.write(&input, BOUND).await?;
        sum.close_stdin();
        let checksum = Receipt::of(&input).checksum.to_string();
        sum.stdout_line(BOUND, "its checksum", |line| line.starts_with(&checksum).then_some(())).await?;
        sum.exits_with(0, BOUND).await
    });
    futures_util::future::try_join_all(execs).await.map(drop)
}

/// A client with a terminal gets one of the same size, also when that changes, and keeps its exit code.
pub(crate) async fn exec_gives_a_terminal(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let size = |size: &str| format!("until [ \"$(stty size)\" = \"{size}\" ]; do sleep 0.05; done; echo is {size}; ");
    let script = format!("{}{}read line; echo \"got $line\"; exit 5", size("41 101"), size("52 112"));
    let first = kubectl.bytes("first-size", b"")?;
    let resize = format!(
        "stty rows 41 columns 101; terminal=$(tty); \
         (while [ -e {} ]; do sleep 0.05; done; stty --file=$terminal rows 52 columns 112) &",
        first.display()
    );
    let command = kubectl.program(&format!("exec -it {pod} -- sh -c '{script}'"));
    let mut terminal = command.after_shell(&format!("{resize} :")).within_terminal().with_stdin().spawn()?;
    let line = |text: &'static str| move |line: &str| line.trim_end().ends_with(text).then_some(());
    terminal.stdout_line(BOUND, "the first size", line("is 41 101")).await?;
    fs::remove_file(first)?;
    terminal.stdout_line(BOUND, "the second size", line("is 52 112")).await?;
    terminal.write(b"a word\n", BOUND).await?;
    terminal.stdout_line(BOUND, "the word", line("got a word")).await?;
    terminal.exits_with(5, BOUND).await
}

/// A client that is killed takes its command with it.
pub(crate) async fn a_client_that_leaves_ends_its_command(
    kubectl: &Kubectl,
    server: &ApiServer,
    pod: &str,
) -> Result<()> {
    let mut running = kubectl.spawn(&format!("exec {pod} -- sh -c 'echo $$; sleep 1000; true'"))?;
    let pid: u32 = running.stdout_line(BOUND, "its number", |line| line.parse().ok()).await?;
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    ensure!(process.exists(), "the command does not run in {:?}", server.folder(pod)?);
    running.kill().await?;
    wait_until(BOUND, "the command's end", async || !process.exists()).await
}

/// Files are copied to a pod and back with every byte.
pub(crate) async fn cp_copies_both_ways(kubectl: &Kubectl, server: &ApiServer, pod: &str) -> Result<()> {
    let content = Pattern::new(2, LONG).to_vec();
    let there = kubectl.bytes("there", &content)?;
    let folder = server.folder(pod)?;
    fs::create_dir_all(folder.join("data"))?;
    kubectl.ok(&format!("cp {} {pod}:data/file", there.display())).await?;
    ensure!(fs::read(folder.join("data/file"))? == content, "the copy differs");
    let back = kubectl.bytes("back", b"")?;
    fs::remove_file(&back)?;
    kubectl.ok(&format!("cp {pod}:data/file {}", back.display())).await?;
    ensure!(fs::read(&back)? == content, "the copy of the copy differs");
    Ok(())
}

/// What is typed comes to the pod's main process, and what that writes comes back, until it ends.
pub(crate) async fn attach_carries_both_ways(kubectl: &Kubectl, server: &ApiServer, pod: &str) -> Result<()> {
    let mut attached = kubectl.program(&format!("attach -i {pod}")).with_stdin().spawn()?;
    attached.write(b"typed\n", BOUND).await?;
    attached.stdout_line(BOUND, "what was typed", |line| (line == "typed").then_some(())).await?;
    server.log(pod, "logged");
    attached.stdout_line(BOUND, "what was logged", |line| (line == "logged").then_some(())).await?;
    server.end_log(pod);
    attached.exits_with(0, BOUND).await
}

/// A log is followed line by line to its end.
pub(crate) async fn logs_are_followed(kubectl: &Kubectl, server: &ApiServer, pod: &str) -> Result<()> {
    server.log(pod, "before");
    let mut follower = kubectl.spawn(&format!("logs -f {pod}"))?;
    for line in ["before", "during", "later"] {
        if line != "before" {
            server.log(pod, line);
        }
        follower.stdout_line(BOUND, line, |found| (found == line).then_some(())).await?;
    }
    server.end_log(pod);
    follower.exits_with(0, BOUND).await
}
