//! The window against what it is meant to be: a list of commits, of which one may start when no earlier
//! one that is not finished shares a row with it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Rows that there are.
const LANES: i64 = 4;

/// Between the sequences of two commits that come one after the other: one that an operator brings back
/// may stand there.
const GAP: i64 = 2;

#[derive(Clone, Debug)]
enum Step {
    /// The next commit is read: its rows, when it is due, and whether somebody asked for it.
    Read(BTreeSet<i64>, u64, bool),
    /// Time passes.
    Pass(u64),
    Pop,
    PopAsked,
    /// One that may start departs with its accept.
    Depart(usize),
    /// One that is out was not tried, and waits so long.
    Wait(usize, u64),
    /// One that is out failed, waits so long, and is asked for or not.
    Fail(usize, u64, bool),
    /// One that is out is dead, and holds its lanes so long.
    Hold(usize, u64),
    /// One that is out is finished.
    Finish(usize),
    /// One is finished wherever it stands, by an operator.
    Settle(usize),
    /// The end of a spell that lasted so long.
    Recover(u64),
    /// An operator changed the inbox: it is read anew, with a commit brought back on these rows.
    Renew(usize, BTreeSet<i64>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let rows = || prop::collection::btree_set(0..LANES, 1..3);
    let which = || 0_usize..99;
    prop_oneof![
        6 => (rows(), 0_u64..50, prop::bool::weighted(0.2))
            .prop_map(|(rows, due, asked)| Step::Read(rows, due, asked)),
        3 => (0_u64..60).prop_map(Step::Pass),
        8 => Just(Step::Pop),
        3 => Just(Step::PopAsked),
        1 => which().prop_map(Step::Depart),
        2 => (which(), 0_u64..50).prop_map(|(which, pause)| Step::Wait(which, pause)),
        4 => (which(), 0_u64..90, prop::bool::weighted(0.2))
            .prop_map(|(which, pause, asked)| Step::Fail(which, pause, asked)),
        1 => (which(), 0_u64..90).prop_map(|(which, until)| Step::Hold(which, until)),
        4 => which().prop_map(Step::Finish),
        1 => which().prop_map(Step::Settle),
        1 => (0_u64..90).prop_map(Step::Recover),
        1 => (which(), rows()).prop_map(|(which, rows)| Step::Renew(which, rows)),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Waits,
    Out,
    Holds(OffsetDateTime),
}

#[derive(Clone, Debug)]
struct Known {
    sequence: i64,
    rows: BTreeSet<i64>,
    due_at: OffsetDateTime,
    failed_at: Option<OffsetDateTime>,
    asked: bool,
    standing: Standing,
}

/// Commits that are not finished, in their order.
#[derive(Debug)]
struct Model {
    now: OffsetDateTime,
    known: Vec<Known>,
    recovery: Option<Recovery>,
    last: i64,
}

impl Model {
    /// What may start, by when it is due.
    fn ready(&self, asked: bool) -> BTreeSet<(OffsetDateTime, i64)> {
        let first = |(at, one): &(usize, &Known)| {
            let mut before = self.known[..*at].iter();
            before.all(|earlier| earlier.rows.is_disjoint(&one.rows))
        };
        let all = self.known.iter().enumerate().filter(first);
        let waiting = all.filter(|(_, one)| one.standing == Standing::Waits && one.asked == asked);
        waiting.map(|(_, one)| (one.due_at, one.sequence)).collect()
    }

    fn first_due(&self, asked: bool) -> Option<i64> {
        let (due_at, sequence) = self.ready(asked).first().copied()?;
        (due_at <= self.now).then_some(sequence)
    }

    fn get(&mut self, sequence: i64) -> &mut Known {
        let found = self.known.iter_mut().find(|it| it.sequence == sequence);
        found.expect("it is not finished")
    }

    /// The sequence of one that stands so, counted round.
    fn one(&self, which: usize, standing: Option<Standing>) -> Option<i64> {
        let fits = |it: &&Known| standing.is_none_or(|standing| it.standing == standing);
        let all: Vec<_> = self.known.iter().filter(fits).collect();
        Some(all[which.checked_rem(all.len())?].sequence)
    }

    /// What failed in the spell is due when it ended.
    fn brought_forward(&self, one: &mut Known) {
        if let (Some(recovery), Some(failed_at)) = (self.recovery, one.failed_at)
            && recovery.covers(failed_at)
        {
            one.due_at = one.due_at.min(recovery.at);
        }
    }

    fn bring_all_forward(&mut self) {
        let mut known = std::mem::take(&mut self.known);
        for one in &mut known {
            self.brought_forward(one);
        }
        self.known = known;
    }

    fn finish(&mut self, sequence: i64) {
        self.known.retain(|it| it.sequence != sequence);
    }
}

/// A commit as it stands in the inbox.
fn stored(one: &Known) -> Waiting {
    Waiting {
        lanes: one.rows.iter().copied().collect(),
        holds_until: match one.standing {
            Standing::Holds(until) => Some(until),
            Standing::Waits | Standing::Out => None,
        },
        due_at: one.due_at,
        failed_at: one.failed_at,
        tried: one.failed_at.is_some(),
        asked: one.asked,
        ..entry(one.sequence, 0)
    }
}

/// How long that is.
fn after(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The inbox is read, and how the source stands.
fn read(window: &mut Window, model: &mut Model, step: &Step) {
    let now = model.now;
    match step.clone() {
        Step::Read(rows, due, asked) => {
            model.last += GAP;
            let one = Known {
                sequence: model.last,
                rows,
                due_at: now + after(due),
                failed_at: None,
                asked,
                standing: Standing::Waits,
            };
            window.extend(vec![stored(&one)], model.recovery);
            model.known.push(one);
        }
        Step::Recover(lasted) => {
            let recovery = Recovery {
                from: Some(now - after(lasted)),
                at: now,
            };
            model.recovery = Some(recovery);
            window.recover(recovery);
            model.bring_all_forward();
        }
        Step::Renew(which, rows) => {
            if let Some(before) = model.one(which, None)
                && !model.known.iter().any(|it| it.sequence == before - 1)
            {
                let revived = Known {
                    sequence: before - 1,
                    rows,
                    due_at: now,
                    failed_at: None,
                    asked: false,
                    standing: Standing::Waits,
                };
                model.known.push(revived);
                model.known.sort_by_key(|it| it.sequence);
            }
            model.bring_all_forward();
            window.renew(window.revision + 1);
            window.extend(model.known.iter().map(stored).collect(), model.recovery);
        }
        _ => {}
    }
}

/// Time passes, and commits leave.
fn leave(window: &mut Window, model: &mut Model, step: &Step) {
    let now = model.now;
    match step.clone() {
        Step::Pass(seconds) => {
            model.now += after(seconds);
            let now = model.now;
            while let Some(over) = window.pop_over(now) {
                assert!(matches!(model.get(over).standing, Standing::Holds(until) if until <= now));
                window.finish(over);
                model.finish(over);
            }
            let over = |it: &Known| matches!(it.standing, Standing::Holds(until) if until <= now);
            assert!(!model.known.iter().any(over));
        }
        Step::Pop | Step::PopAsked => {
            let asked = matches!(step, Step::PopAsked);
            let found = if asked {
                window.pop_asked(now)
            } else {
                window.pop(now)
            };
            assert_eq!(found, model.first_due(asked));
            if let Some(sequence) = found {
                model.get(sequence).standing = Standing::Out;
            }
        }
        Step::Depart(which) => {
            let ready: Vec<_> = model.ready(false).into_iter().collect();
            if let Some(which) = which.checked_rem(ready.len()) {
                let (_, sequence) = ready[which];
                window.depart(sequence);
                model.get(sequence).standing = Standing::Out;
            }
        }
        _ => {}
    }
}

/// What became of those that left.
fn end(window: &mut Window, model: &mut Model, step: &Step) {
    let now = model.now;
    match step.clone() {
        Step::Wait(which, pause) => {
            if let Some(sequence) = model.one(which, Some(Standing::Out)) {
                window.wait(sequence, now + after(pause));
                let one = model.get(sequence);
                (one.due_at, one.standing) = (now + after(pause), Standing::Waits);
            }
        }
        Step::Fail(which, pause, asked) => {
            if let Some(sequence) = model.one(which, Some(Standing::Out)) {
                let failed = (now + after(pause), Some(now));
                window.ask(sequence, asked);
                window.wait_again(sequence, failed, model.recovery);
                let mut one = model.get(sequence).clone();
                (one.due_at, one.failed_at) = failed;
                (one.asked, one.standing) = (asked, Standing::Waits);
                model.brought_forward(&mut one);
                *model.get(sequence) = one;
            }
        }
        Step::Hold(which, seconds) => {
            if let Some(sequence) = model.one(which, Some(Standing::Out)) {
                window.hold(sequence, now + after(seconds));
                model.get(sequence).standing = Standing::Holds(now + after(seconds));
            }
        }
        Step::Finish(which) | Step::Settle(which) => {
            let out = matches!(step, Step::Finish(_)).then_some(Standing::Out);
            if let Some(sequence) = model.one(which, out) {
                window.finish(sequence);
                model.finish(sequence);
            }
        }
        _ => {}
    }
}

proptest! {
    /// Whatever is read, tried, held, finished, brought back and brought forward: who may start, and when,
    /// is as the definition has it.
    #[test]
    fn a_window_agrees_with_the_definition_whatever_happens(
        steps in prop::collection::vec(any_step(), 1..120)
    ) {
        let mut window = Window::default();
        let mut model = Model { now: START, known: Vec::new(), recovery: None, last: 100 };
        for one in steps {
            for happens in [read, leave, end] {
                happens(&mut window, &mut model, &one);
            }
            let due = |asked| model.ready(asked).first().map(|(due, _)| *due);
            prop_assert_eq!(window.next_asked(), due(true));
            let held = model.known.iter().filter_map(|it| match it.standing {
                Standing::Holds(until) => Some(until),
                Standing::Waits | Standing::Out => None,
            });
            prop_assert_eq!(window.next(), due(false).into_iter().chain(held).min());
            prop_assert_eq!(window.is_due(model.now), model.first_due(false).is_some());
            for one in &model.known {
                prop_assert!(window.contains(one.sequence));
                prop_assert_eq!(window.is_out(one.sequence), one.standing == Standing::Out);
            }
            for lane in 0..LANES {
                let free = !model.known.iter().any(|it| it.rows.contains(&lane));
                prop_assert_eq!(window.are_free(&[lane]), free);
            }
        }
    }
}
