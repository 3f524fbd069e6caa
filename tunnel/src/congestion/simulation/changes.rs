//! What the controller promises of a path that changes under a tunnel.

use std::time::Duration;

use super::{
    Network, Path,
    tests::{check, ours, row, seconds, share},
};
use crate::congestion::model::INITIAL_WINDOW;

#[test]
fn a_path_that_changes_is_followed() {
    let before = Path::new(100.0, 50.0, 1.0, 0.0);
    for (after, settling) in [
        (Path::new(50.0, 50.0, 2.0, 0.0), 1.0),
        (Path::new(10.0, 50.0, 2.0, 0.0), 2.0),
        (Path::new(200.0, 50.0, 1.0, 0.0), 1.5),
        (Path::new(100.0, 100.0, 1.0, 0.0), 2.0),
        (Path::new(100.0, 300.0, 1.0, 0.0), 7.0),
        (Path::new(100.0, 20.0, 1.0, 0.0), 1.0),
    ] {
        let mut network = Network::new(before);
        network.tunnel(Duration::ZERO, 1, true, ours);
        network.run(seconds(2.0));
        network.change(after);
        network.run(seconds(settling));
        check(after, &network.run(seconds(1.5)).remove(0), 0.85, 0.6);
    }
}

/// A tunnel stands over a short path; then the path is a long and fat one, and work begins.
#[test]
fn a_path_that_changed_without_traffic_is_learned_anew() {
    let mut network = Network::new(Path::new(100.0, 50.0, 1.0, 0.0));
    network.tunnel(Duration::ZERO, 1, true, ours);
    network.pause(true);
    network.run(seconds(0.5));
    let after = Path::new(400.0, 100.0, 0.5, 0.0);
    network.change(after);
    network.pause(false);
    network.run(seconds(3.0));
    check(after, &network.run(seconds(2.0)).remove(0), 0.9, 0.4);
}

/// A tunnel that has carried much over a short path is idle while that becomes one over a satellite.
#[test]
fn a_path_that_became_far_longer_without_traffic_is_learned_anew() {
    let mut network = Network::new(Path::new(60.0, 20.0, 2.0, 0.0));
    network.tunnel(Duration::ZERO, 1, true, ours);
    network.run(seconds(3.0));
    network.pause(true);
    network.run(seconds(12.0));
    let after = Path::new(50.0, 600.0, 0.5, 0.01);
    network.change(after);
    network.run(seconds(12.0));
    network.pause(false);
    network.run(seconds(12.0));
    check(after, &network.run(seconds(12.0)).remove(0), 0.75, 1.4);
}

#[test]
fn a_tunnel_that_was_idle_does_not_wake_with_its_old_window() {
    let path = Path::new(100.0, 50.0, 1.0, 0.0);
    let mut network = Network::new(path);
    network.tunnel(Duration::ZERO, 1, true, ours);
    network.run(seconds(2.0));
    assert!(network.window(0) > 8 * INITIAL_WINDOW);
    // What the server has written by now, 64 MB, takes 5 s; the small requests go on.
    network.pause(true);
    network.run(seconds(20.0));
    assert!(network.window(0) < 2 * INITIAL_WINDOW);
    let slower = Path::new(10.0, 50.0, 1.0, 0.0);
    network.change(slower);
    network.pause(false);
    let lost = network.run(seconds(2.0)).remove(0).lost;
    assert!(lost < 100, "{lost} packets lost on waking");
    check(slower, &network.run(seconds(2.0)).remove(0), 0.85, 0.6);
}

#[test]
fn a_link_that_went_dark_is_taken_up_again() {
    let path = Path::new(100.0, 50.0, 1.0, 0.0);
    let mut network = Network::new(path);
    network.tunnel(Duration::ZERO, 1, true, ours);
    network.run(seconds(2.0));
    network.change(Path { loss: 1.0, ..path });
    network.run(seconds(2.0));
    network.change(path);
    // The time-out of the last probe, which doubled in the dark, and a new start-up.
    network.run(seconds(5.0));
    check(path, &network.run(seconds(2.0)).remove(0), 0.85, 0.4);
}

/// One tunnel whose link becomes one after the other.
#[test]
fn links_that_change_are_filled_again() {
    let all = links::catalogue();
    let mut network = Network::new(&all[0]);
    network.tunnel(Duration::ZERO, 1, true, ours);
    for named in all {
        network.change(&named);
        // A dip, with which what was lost before is forgotten.
        network.run(seconds(10.0));
        let outcome = network.run(seconds(3.0)).remove(0);
        assert!(share(&named, &outcome) > 0.8, "{}: {}", named.name, row(&named, &outcome));
    }
}

/// A link that begins to lose much while it is full: what it lost before is of the past.
#[test]
fn heavy_loss_that_begins_is_no_congestion() {
    let all = links::catalogue();
    for before in all.iter().filter(|named| named.down.loss.share == 0.0) {
        for after in all.iter().filter(|named| named.down.loss.share >= 0.1) {
            let mut network = Network::new(before);
            network.tunnel(Duration::ZERO, 1, true, ours);
            for named in [before, after] {
                network.change(named);
                network.run(seconds(6.0));
            }
            let outcome = network.run(seconds(3.0)).remove(0);
            assert!(share(after, &outcome) > 0.7, "{}, {}: {}", before.name, after.name, row(after, &outcome));
        }
    }
}

/// A link that becomes slow and far, with a deep queue: what is in there is ours, and goes with a smaller window.
#[test]
fn a_link_that_becomes_slow_with_a_deep_queue_is_not_flooded() {
    let before = Path::new(20.0, 40.0, 2.5, 0.0);
    for after in [
        Path { queue: seconds(2.0), ..Path::new(1.0, 100.0, 1.0, 0.0) },
        Path { queue: seconds(1.5), ..Path::new(2.0, 80.0, 1.0, 0.0) },
        Path { queue: seconds(1.0), ..Path::new(5.0, 60.0, 1.0, 0.0) },
    ] {
        let mut network = Network::new(before);
        network.tunnel(Duration::ZERO, 1, true, ours);
        network.run(seconds(8.0));
        network.change(after);
        // The queue that was there when it became slow.
        network.run(seconds(4.0));
        check(after, &network.run(seconds(8.0)).remove(0), 0.8, 1.2);
    }
}
