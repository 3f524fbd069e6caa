//! The hub is killed in the middle of a step: it starts again with a CA that works, and the step goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use serde_json::json;
use tests::{Fetch, HUB_NAME, Hub, Spoke, wait_until};
use tokio::time::{sleep, timeout};

use super::{BOUND, status, step};

/// How far a step is when the hub dies. Two files and their folders are on disk within some milliseconds.
const MOMENTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(9)];

#[tokio::test]
async fn a_hub_that_is_killed_in_the_middle_of_a_step_goes_on_from_there() -> Result<()> {
    let mut hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "near").start().await?;
    let steps = [("begin", "Begun"), ("sign", "Signing"), ("finish", "Settled")];
    for moment in MOMENTS {
        for (word, phase) in steps {
            if word == "finish" {
                super::changed_over(&hub, "near").await?;
            }
            let request = Fetch::new(Method::POST, format!("/v1/ca/{word}")).json(&json!({}));
            let request = request.bearer(&hub.credentials().token()?);
            let asking = request.tls(hub.addresses().api, HUB_NAME, hub.credentials().tls()?);
            // The answer, or the moment: whichever comes first.
            let answered = timeout(Duration::from_millis(40) + moment, asking).await.is_ok();
            sleep(moment).await;
            hub.kill().await?;
            hub.start_again().await?;
            let found = status(&hub).await?["phase"].clone();
            eprintln!("{word} at {moment:?}: answered {answered}, then {found}");
            if found != phase {
                if word == "finish" {
                    super::changed_over(&hub, "near").await?;
                }
                step(&hub, word).await?;
            }
            ensure!(status(&hub).await?["phase"] == phase, "{word} did not get through");
            wait_until(BOUND, "the agent to be back", async || hub.is_available("near").await).await?;
        }
    }
    Ok(())
}
