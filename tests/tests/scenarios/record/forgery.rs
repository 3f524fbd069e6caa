//! What strangers, users and agents say is in the log and in the audit record as one field of one line, whatever is in it.

use super::*;

use tests::client::Entry;
use tests::{Client, Spoke};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Ends a line and writes another one, for a terminal, for readers of text and for readers of JSON.
const FORGED: &str = "x\n{\"event\":\"forged\"}\nforged\r\u{1b}[2Kforged\u{9b}\u{2028}forged\u{202e}\" result=\"forged";

/// Asks by SOCKS5 with the domain `name`, showing `token`.
async fn ask_by_socks5(hub: &Hub, token: &str, name: &[u8]) -> Result<()> {
    let mut client = Client::new(Entry::Plain(hub.addresses().proxy)).enter().await?;
    let counted = |bytes: &[u8]| [&[u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let login = [&[1][..], &counted(b"a"), &counted(token.as_bytes())].concat();
    let request = [&[5, 1, 0, 3][..], &counted(name), &[0, 80]].concat();
    client.write_all(&[&[5, 1, 2][..], &login, &request].concat()).await?;
    let mut answer = Vec::new();
    // Its end, one way or the other.
    let _ = timeout(BOUND, client.read_to_end(&mut answer)).await.context("no end")?;
    Ok(())
}

/// Has everybody who can say something say [`FORGED`].
async fn attack(hub: &Hub, agent: &RawAgent) -> Result<()> {
    let token = hub.credentials().token()?;
    ask_by_socks5(hub, "wrong", FORGED.as_bytes()).await?;
    ask_by_socks5(hub, &token, FORGED.as_bytes()).await?;
    let mut connections = JoinSet::new();
    drop(dial_by_grpc(hub, None, &format!("{FORGED}:80"), &mut connections).await?);
    let client = hub.client("a")?;
    let (dialled, accepted) =
        tokio::join!(client.dial("target:80"), async { anyhow::Ok(agent.dial().await?.accept(FORGED).await?) });
    drop((dialled?, accepted?));
    let (refused, told) = tokio::join!(client.dial("target:81"), async {
        let refusal = tunnel::Refusal::new(tunnel::Reason::Internal, FORGED);
        anyhow::Ok(agent.dial().await?.refuse(refusal).await?)
    });
    told?;
    let Err(tests::client::DialError::Status { body, .. }) = refused else { anyhow::bail!("{refused:?}") };
    assert!(!body.trim_end().contains(|letter: char| letter.is_control()), "{body:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_writes_lines_or_fields_of_a_record_in_json() -> Result<()> {
    let site = Site::start().await?;
    attack(&site.hub, &site.agent).await?;
    let events = site.wait_for_events(&[("event", "connection")], 5).await?;
    let kinds: Vec<_> = site.events()?.iter().map(|event| event["event"].to_string()).collect();
    assert!(!kinds.iter().any(|kind| kind.contains("forged")), "{kinds:?}");
    let asked = |event: &Value| event["target"].as_str().is_some_and(|target| target.starts_with(FORGED));
    assert_eq!(events.iter().filter(|event| asked(event)).count(), 3, "{events:#?}");
    assert_eq!(events.iter().filter(|event| event["address"] == FORGED).count(), 1);
    assert!(events.iter().all(|event| event["version"] == 1 && event["result"] != "forged"));
    let text = std::fs::read_to_string(site.log())?;
    assert!(!text.contains(|letter: char| letter != '\n' && process::is_hidden(letter)), "{text:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_writes_lines_of_a_log_in_text() -> Result<()> {
    let mut hub = Hub::start().await?;
    let agent = RawAgent::open(&hub, &AgentCredentials::joined(&hub, "a", "agent").await?).await?;
    attack(&hub, &agent).await?;
    // A name and an agent's version come into the log by other ways.
    let join = Spoke::of(&hub, "b").agent("b").token("cpj-wrong.wrong");
    let state = TempDir::new()?;
    join.join(state.path()).await?.run(BOUND).await?;
    hub.stop().await?;
    let lines = hub.process().stderr();
    let audit: Vec<_> = lines.iter().filter(|line| line.contains(" audit: connection ")).collect();
    assert_eq!(audit.len(), 5, "{lines:#?}");
    for line in &lines {
        assert!(line.starts_with("20"), "a line of somebody else: {line:?}");
        assert!(!line.contains(process::is_hidden), "{line:?}");
    }
    Ok(())
}
