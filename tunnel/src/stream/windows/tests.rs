//! Relays over a real tunnel between scripted connections: whatever the schedule of reads, writes, ends, resets and
//! stalls, the bytes are those that were read, in order, each end is told to the other, and no more is held than granted.

mod scripted;

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseResult, TestRunner},
};
use scripted::{End, Progress, Reader, Source, Take, Writer, reader, writer};
use tokio::{task::JoinSet, time::timeout};

use super::*;
use crate::{
    AgentTunnel, HubTunnel, RelayEnd, ResetReason, Stream, Traffic,
    tests::{Pair, SOON, dialled, pair_with},
};

/// What happens to a connection beyond its two directions' lengths. `up` is the direction from the hub to the agent.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Both directions end with FIN.
    None,
    /// Nobody reads on after so many bytes, and the other direction falls silent. (A stalled direction alone learns of a
    /// reset when it goes on.)
    Stall { up: bool, after: u64 },
    /// The sender stays silent instead of saying FIN.
    Silence { up: bool },
    /// The sender is reset instead of saying FIN.
    SenderReset { up: bool },
    /// The receiver is reset after so many bytes.
    ReceiverReset { up: bool, after: u64 },
}

#[derive(Clone, Debug)]
struct Plan {
    /// Lengths and schedules: up, down.
    sources: [Source; 2],
    takes: [Vec<u16>; 2],
    event: Event,
}

/// One end of a relayed connection.
struct Relayed {
    ends: JoinSet<(bool, RelayEnd)>,
    near: tokio::task::AbortHandle,
    progress: [Arc<Progress>; 2],
}

fn plan() -> impl Strategy<Value = Plan> {
    let length = || prop_oneof![0..100_u64, 0..100_000_u64];
    let schedule = || prop::collection::vec(prop_oneof![Just(0), 1..4000_u16, Just(u16::MAX)], 1..20);
    let source =
        || (length(), schedule(), any::<u8>()).prop_map(|(length, pieces, seed)| Source { length, pieces, seed });
    let event = prop_oneof![
        2 => Just(Event::None),
        2 => (any::<bool>(), length()).prop_map(|(up, after)| Event::Stall { up, after }),
        1 => any::<bool>().prop_map(|up| Event::Silence { up }),
        1 => any::<bool>().prop_map(|up| Event::SenderReset { up }),
        1 => (any::<bool>(), length()).prop_map(|(up, after)| Event::ReceiverReset { up, after }),
    ];
    let plan = ([source(), source()], [schedule(), schedule()], event);
    plan.prop_map(|(mut sources, takes, event)| {
        if let Event::Stall { up, after } = event {
            // More than any window: the sender's end is not sent before the receiver goes on.
            sources[usize::from(!up)].length = after + TunnelMemory::SMALLEST.bytes();
        }
        Plan { sources, takes, event }
    })
}

impl Plan {
    fn end(&self, up: bool) -> End {
        match self.event {
            Event::Silence { up: silent } if silent == up => End::Silence,
            Event::Stall { up: stalled, .. } if stalled != up => End::Silence,
            Event::SenderReset { up: reset } if reset == up => End::Reset,
            Event::None
            | Event::Stall { .. }
            | Event::Silence { .. }
            | Event::SenderReset { .. }
            | Event::ReceiverReset { .. } => End::Fin,
        }
    }

    fn take(&self, up: bool) -> Take {
        match self.event {
            Event::Stall { up: stalled, after } if stalled == up => Take::Stall(after),
            Event::ReceiverReset { up: reset, after } if reset == up => Take::Reset(after),
            Event::None
            | Event::Stall { .. }
            | Event::Silence { .. }
            | Event::SenderReset { .. }
            | Event::ReceiverReset { .. } => Take::All,
        }
    }

    fn length(&self, up: bool) -> u64 {
        self.sources[usize::from(!up)].length
    }

    /// Starts both relays: the hub's reads what goes up and writes what comes down.
    fn start(&self, near: Stream, far: Stream) -> Relayed {
        let progress = [Arc::<Progress>::default(), Arc::default()];
        let reader = |up: bool| -> Reader {
            let direction = usize::from(!up);
            reader(self.sources[direction].clone(), self.end(up), progress[direction].clone())
        };
        let writer = |up: bool| -> Writer {
            let direction = usize::from(!up);
            let seed = self.sources[direction].seed;
            writer(seed, self.takes[direction].clone(), self.take(up), progress[direction].clone())
        };
        let mut ends = JoinSet::new();
        let mut start = |stream: Stream, up: bool| {
            let (reader, writer) = (reader(up), writer(!up));
            ends.spawn(async move { (up, crate::relay(stream, reader, writer, &Traffic::default()).await) })
        };
        let near = start(near, true);
        start(far, false);
        Relayed { ends, near, progress }
    }
}

impl Relayed {
    /// The relays' ends: the hub's, the agent's.
    async fn ends(&mut self) -> [Option<RelayEnd>; 2] {
        let mut ends = [None; 2];
        while let Some(ended) = timeout(SOON, self.ends.join_next()).await.expect("a relay hangs") {
            match ended {
                Ok((near, end)) => ends[usize::from(!near)] = Some(end),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
        ends
    }

    /// Waits until `up` has brought `bytes`, and the other direction everything.
    async fn standstill(&mut self, up: bool, bytes: u64, plan: &Plan) {
        let (stalled, other) = (self.direction(up), self.direction(!up));
        timeout(SOON, stalled.wait(|| stalled.written() == bytes)).await.expect("what is taken arrives");
        timeout(SOON, other.wait(|| other.written() == plan.length(!up))).await.expect("the other direction goes on");
        assert!(self.ends.try_join_next().is_none(), "a relay ended without a reason");
    }

    fn direction(&self, up: bool) -> Arc<Progress> {
        self.progress[usize::from(!up)].clone()
    }
}

/// Plays one plan to its end and holds it against what must have happened.
async fn play(plan: Plan, hub: HubTunnel, agent: AgentTunnel) {
    let (near, far) = dialled(&hub, &agent).await;
    let mut relayed = plan.start(near, far);
    let reset = Some(RelayEnd::RemoteReset(ResetReason::ConnectionReset));
    match plan.event {
        Event::Stall { up, after } => {
            relayed.standstill(up, after, &plan).await;
            // The agent receives what goes up.
            let pool = if up { &agent.windows.pool } else { &hub.windows.pool };
            let held = relayed.direction(up).read() - after;
            assert!(held <= pool.base() + pool.taken(), "{held} bytes are held");
            relayed.near.abort();
            relayed.direction(up).leave();
            let ends = relayed.ends().await;
            let expected = [RelayEnd::RemoteReset(ResetReason::Abandoned), RelayEnd::LocalReset];
            // Whether the writer at the far end breaks before it hears of the near end is open.
            assert!(ends[0].is_none() && ends[1].is_some_and(|end| expected.contains(&end)), "{ends:?}");
        }
        Event::Silence { up } => {
            relayed.standstill(up, plan.length(up), &plan).await;
            let other = relayed.direction(!up);
            timeout(SOON, other.wait(|| other.is_complete(plan.length(!up)))).await.expect("a half-close arrives");
            relayed.near.abort();
            assert_eq!(relayed.ends().await, [None, Some(RelayEnd::RemoteReset(ResetReason::Abandoned))]);
        }
        Event::SenderReset { up } => {
            let expected = [Some(RelayEnd::LocalReset), reset];
            assert_eq!(relayed.ends().await, if up { expected } else { [expected[1], expected[0]] });
            // What was sent before the break has arrived.
            assert_eq!(relayed.direction(up).written(), plan.length(up));
        }
        Event::ReceiverReset { up, after } if after < plan.length(up) => {
            let ends = relayed.ends().await;
            let (sender, receiver) = if up { (ends[0], ends[1]) } else { (ends[1], ends[0]) };
            assert_eq!(receiver, Some(RelayEnd::LocalReset));
            // What has arrived, FIN and all, before its receiver broke, is complete for its sender.
            assert!(sender == reset || sender == Some(RelayEnd::Complete), "{sender:?}");
        }
        Event::None | Event::ReceiverReset { .. } => {
            assert_eq!(relayed.ends().await, [Some(RelayEnd::Complete); 2]);
            for up in [true, false] {
                assert!(relayed.direction(up).is_complete(plan.length(up)), "{:?}", relayed.direction(up));
            }
        }
    }
}

async fn play_all(plans: Vec<Plan>, hub: &HubTunnel, agent: &AgentTunnel) -> TestCaseResult {
    let mut playing = JoinSet::new();
    for plan in plans {
        playing.spawn(play(plan, hub.clone(), agent.clone()));
    }
    while let Some(played) = playing.join_next().await {
        played.map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
    for windows in [&hub.windows, &agent.windows] {
        prop_assert_eq!(windows.pool.taken(), 0);
        prop_assert!(windows.streams.lock().is_empty());
        prop_assert!(windows.grants.lock().is_empty());
    }
    Ok(())
}

#[test]
fn any_schedule_keeps_bytes_order_and_ends_and_holds_no_more_than_granted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // First windows of 7 KiB, so that they are used up and granted anew many times.
    let Pair { hub, agent, hub_control: _hub_control, agent_control: _agent_control, listener: _listener } =
        runtime.block_on(pair_with(TunnelMemory::SMALLEST));
    let plans = prop::collection::vec(plan(), 1..6);
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    runner.run(&plans, |plans| runtime.block_on(play_all(plans, &hub, &agent))).unwrap();
}
