mod model;

use std::time::Duration;

use super::*;

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn at(seconds: u64) -> OffsetDateTime {
    START + Duration::from_secs(seconds)
}

/// Commits on rows of their own, of which these were tried before.
fn window(commits: i64, tried: &[i64]) -> Window {
    let entries = (1..=commits).map(|sequence| Waiting {
        tried: tried.contains(&sequence),
        ..entry(sequence, sequence)
    });
    let mut window = Window::default();
    window.extend(entries.collect(), None);
    window
}

#[test]
fn a_probe_is_a_commit_that_was_never_tried_the_oldest_and_the_newest_by_turns() {
    let mut window = window(6, &[1, 2, 6]);
    let probes: Vec<_> = (0..7).map(|_| window.probe(START)).collect();
    let wanted = [3, 5, 4, 1, 2, 6].map(Some);
    assert_eq!(probes[..6], wanted);
    assert_eq!(probes[6], None);
}

#[test]
fn a_probe_that_failed_is_not_the_next_one() {
    let mut window = window(2, &[]);
    assert_eq!(window.probe(START), Some(1));
    window.wait_again(1, (START, Some(START)), None);
    assert_eq!(window.probe(START), Some(2));
    window.wait_again(2, (at(9), Some(START)), None);
    assert_eq!(window.probe(START), Some(1));
    assert_eq!(window.probe(START), None);
}

#[test]
fn a_recovery_brings_forward_what_failed_in_its_spell_and_nothing_else() {
    let mut window = window(3, &[]);
    for (sequence, failed) in [(1, 5), (2, 15), (3, 25)] {
        assert_eq!(window.pop(START), Some(sequence));
        window.wait_again(sequence, (at(1_000), Some(at(failed))), None);
    }
    window.recover(Recovery {
        from: Some(at(10)),
        at: at(20),
    });
    assert_eq!(window.pop(at(20)), Some(2));
    assert!(!window.is_due(at(999)));
    assert_eq!(window.next(), Some(at(1_000)));
}

fn entry(sequence: i64, lane: i64) -> Waiting {
    Waiting {
        sequence,
        weight: 0,
        lanes: vec![lane],
        holds_until: None,
        due_at: START,
        failed_at: None,
        tried: false,
        open_until: None,
        terms: None,
        asked: false,
    }
}

fn asked(sequence: i64, lane: i64) -> Waiting {
    Waiting {
        asked: true,
        ..entry(sequence, lane)
    }
}

#[test]
fn what_is_under_way_is_not_taken_out_again_when_the_inbox_is_read_anew() {
    let mut window = Window::default();
    window.extend(vec![entry(1, 1), entry(2, 2)], None);
    assert_eq!(window.pop(START), Some(1));
    window.renew(7);
    assert_eq!((window.seen, window.revision), (0, 7));
    window.extend(vec![entry(1, 1), entry(2, 2), entry(3, 1)], None);
    assert_eq!((window.pop(START), window.pop(START)), (Some(2), None));
    window.finish(1);
    assert_eq!(window.pop(START), Some(3));
}

#[test]
fn a_commit_that_waits_again_behind_a_revived_one_is_not_ready() {
    let mut window = Window::default();
    window.extend(vec![entry(2, 1)], None);
    assert_eq!(window.pop(START), Some(2));
    window.renew(1);
    window.extend(vec![entry(1, 1), entry(2, 1)], None);
    window.wait(2, START);
    assert_eq!((window.pop(START), window.pop(START)), (Some(1), None));
    window.finish(1);
    assert_eq!(window.pop(START), Some(2));
}

#[test]
fn what_somebody_asked_for_is_apart_from_what_waits_for_the_source() {
    let mut window = Window::default();
    window.extend(vec![entry(1, 1), asked(2, 2), asked(3, 1)], None);
    assert_eq!(window.next_asked(), Some(START));
    assert_eq!(
        (window.pop_asked(START), window.pop_asked(START)),
        (Some(2), None)
    );
    assert_eq!((window.pop(START), window.pop(START)), (Some(1), None));
    window.finish(1);
    assert_eq!(window.pop_asked(START), Some(3), "order holds first");
    window.ask(3, false);
    window.wait(3, START + Duration::from_secs(5));
    assert_eq!((window.next_asked(), window.pop(START)), (None, None));
    window.ask(2, true);
    window.wait(2, START);
    assert_eq!(window.pop_asked(START), Some(2));
}

#[test]
fn a_held_commit_that_was_settled_by_hand_lets_go_when_the_inbox_is_read_anew() {
    let mut window = Window::default();
    let held = Waiting {
        holds_until: Some(START + Duration::from_mins(5)),
        ..entry(1, 1)
    };
    window.extend(vec![held, entry(2, 1)], None);
    assert_eq!(window.pop(START), None);
    window.renew(1);
    window.extend(vec![entry(2, 1)], None);
    assert_eq!(window.pop(START), Some(2));
}
