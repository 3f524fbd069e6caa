//! Scenarios that compare speeds, and so run alone: in a binary of their own, one after the other.

mod crowds;
mod isolation;

use anyhow::Result;
use tests::pattern::Pattern;
use tests::service::transfer;
use tests::speed::ratio;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Held by each scenario for as long as it runs.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_measure_itself_sees_what_is_slower_and_what_is_not() -> Result<()> {
    let _alone = ALONE.lock().await;
    let service = transfer::start().await?;
    let download = async |length| {
        transfer::download(&mut TcpStream::connect(service.address()).await?, Pattern::new(1, length)).await
    };
    let same = ratio(5, async || download(32 << 20).await, async || download(32 << 20).await).await?;
    let slower = ratio(5, async || download(32 << 20).await, async || download(128 << 20).await).await?;
    assert!(
        same > 2.0 * slower,
        "the same is {same:.2} times as fast as itself, and four times as much {slower:.2} times"
    );
    Ok(())
}
