use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const LAG: Duration = Duration::from_mins(1);

fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A feed whose events become visible out of order: when each is, by position from 1 on.
struct Model {
    visible_at: Vec<u64>,
    page: usize,
}

impl Model {
    /// The visible positions after a cursor, and the cursor that goes with them.
    fn read(&self, cursor: Option<&str>, now: u64) -> (Vec<usize>, Option<String>) {
        let after: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let visible = (after + 1..=self.visible_at.len())
            .filter(|position| self.visible_at[position - 1] <= now);
        let page: Vec<usize> = visible.take(self.page).collect();
        let next = page.last().map(ToString::to_string);
        (page, next)
    }
}

proptest! {
    #[test]
    fn every_event_is_found_that_is_no_later_than_the_lag(
        events in prop::collection::vec((0_u64..20, 0_u64..=60), 1..60),
        steps in prop::collection::vec((1_u64..30, any::<bool>()), 1..120),
        page in 1_usize..8,
    ) {
        let mut begun = 0;
        let visible_at = events.iter().map(|(gap, late)| {
            begun += gap;
            begun + late
        });
        let model = Model { visible_at: visible_at.collect(), page };
        let last = model.visible_at.iter().max().copied().unwrap();
        let (mut trail, mut sweep, mut found) = (Trail::default(), None, BTreeSet::new());
        let mut now = 0;
        let rest = (0..).map(|step| (10, step % 2 == 0));
        for (pause, fast) in steps.into_iter().chain(rest) {
            now += pause;
            if fast {
                let (events, next) = model.read(trail.newest(), now);
                found.extend(events);
                if let Some(next) = next {
                    trail.see(next, at(now), LAG);
                }
            } else {
                let mut on = sweep.take().unwrap_or_else(|| Sweep::begin(&trail));
                let (events, next) = model.read(on.cursor(), now);
                found.extend(events);
                let swept = on.page(&trail, (at(now), LAG), next.as_deref());
                if let Some(durable) = swept.durable {
                    prop_assert!(trail.reach(&durable));
                }
                prop_assert_ne!(swept.next, Next::Circle);
                sweep = (swept.next == Next::Page).then_some(on);
            }
            let durable: usize = trail.durable().map_or(0, |cursor| cursor.parse().unwrap());
            for position in 1..=durable {
                prop_assert!(found.contains(&position), "{} was passed over", position);
            }
            if now > last && trail.is_settled() && found.len() == model.visible_at.len() {
                break;
            }
            prop_assert!(now < last + 10_000, "it never settles");
        }
    }
}

#[test]
fn a_cursor_is_durable_only_when_it_was_read_again_after_the_lag() {
    let mut trail = Trail::default();
    trail.see("a".to_owned(), at(0), LAG);
    trail.see("b".to_owned(), at(30), LAG);
    let mut early = Sweep::begin(&trail);
    let swept = early.page(&trail, (at(59), LAG), Some("b"));
    assert_eq!((swept.durable, swept.next), (None, Next::End));
    let mut late = Sweep::begin(&trail);
    let swept = late.page(&trail, (at(61), LAG), Some("b"));
    assert_eq!(
        (swept.durable.as_deref(), swept.next),
        (Some("a"), Next::End)
    );
    assert!(trail.reach("a") && !trail.is_settled());
    assert!(trail.reach("b") && trail.is_settled());
    assert_eq!((trail.newest(), trail.durable()), (Some("b"), Some("b")));
}

#[test]
fn an_early_page_keeps_later_ones_of_its_sweep_from_making_a_cursor_durable() {
    let mut trail = Trail::default();
    trail.see("a".to_owned(), at(0), LAG);
    trail.see("b".to_owned(), at(10), LAG);
    trail.see("c".to_owned(), at(20), LAG);
    let mut sweep = Sweep::begin(&trail);
    assert_eq!(
        sweep
            .page(&trail, (at(65), LAG), Some("a"))
            .durable
            .as_deref(),
        Some("a")
    );
    assert!(trail.reach("a"));
    // Read at 66, it may still lack what becomes visible by 70.
    assert_eq!(sweep.page(&trail, (at(66), LAG), Some("b")).durable, None);
    let swept = sweep.page(&trail, (at(500), LAG), None);
    assert_eq!((swept.durable, swept.next), (None, Next::End));
}

#[test]
fn a_feed_that_leads_in_circles_is_left() {
    let mut trail = Trail::default();
    trail.see("z".to_owned(), at(0), LAG);
    let mut sweep = Sweep::begin(&trail);
    let next = |sweep: &mut Sweep, cursor| sweep.page(&trail, (at(1), LAG), Some(cursor)).next;
    assert_eq!(next(&mut sweep, "a"), Next::Page);
    assert_eq!(next(&mut sweep, "b"), Next::Page);
    assert_eq!(next(&mut sweep, "a"), Next::Circle);
}

#[test]
fn a_trail_stays_short_however_long_nothing_is_swept() {
    let mut trail = Trail::default();
    for second in 0..100_000 {
        trail.see(second.to_string(), at(second), LAG);
        assert!(trail.passed().len() <= LONGEST);
    }
    assert_eq!(trail.passed().last().unwrap().cursor, "99999");
    let mut trail = Trail::default();
    for tick in 0..600_u32 {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(100) * tick;
        trail.see(tick.to_string(), now, LAG);
    }
    assert!(trail.passed().len() <= 70, "{}", trail.passed().len());
}
