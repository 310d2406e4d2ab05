//! What customers do: how their endpoints answer, and what they change by themselves.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::world::{Sink, World};
use crate::endpoint::{Answer, Arrival, Gate, Reply, Row};
use crate::history::{self, Event};

/// A copy that was given up on is executed so long after it arrived.
const LATE: Duration = Duration::from_millis(3_500);

/// Makes an endpoint answer as its model's name says.
pub(super) fn play(sink: &Sink, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ u64::from(sink.endpoint.address().port()));
    let mut late = HashMap::new();
    let mut answer: Box<dyn FnMut(&Arrival) -> Answer + Send> = match sink.model {
        "flaky" => Box::new(move |arrival| rule(arrival).unwrap_or_else(|| flaky(&mut random))),
        "slow" => Box::new(move |_| slow(&mut random)),
        "hostile" => Box::new(move |arrival| {
            rule(arrival).unwrap_or_else(|| hostile(&mut random, &mut late, arrival))
        }),
        _ => Box::new(good),
    };
    let custody = sink.custody.clone();
    let held = move |arrival: &Arrival| custody.over(arrival, answer(arrival));
    sink.endpoint.behave(held);
}

/// When nothing is harmed any more, flaky and hostile endpoints answer like good ones.
pub(super) fn reform(sink: &Sink) {
    if matches!(sink.model, "flaky" | "hostile") {
        sink.endpoint.behave(good);
    }
}

fn good(arrival: &Arrival) -> Answer {
    rule(arrival).unwrap_or_else(Answer::honest)
}

/// One commit in twenty breaks a rule of the customer's, whenever it comes: an endpoint that executed
/// it and refuses it later would be the one that breaks a promise.
fn rule(arrival: &Arrival) -> Option<Answer> {
    let name = arrival.client_tx_id();
    let hash = name.bytes().fold(7_u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    (hash.is_multiple_of(20) && !name.contains("rows"))
        .then(|| Answer::error(StatusCode::CONFLICT, "rule_broken"))
}

fn flaky(random: &mut StdRng) -> Answer {
    match random.random_range(0..20) {
        0 => Answer::status(StatusCode::SERVICE_UNAVAILABLE),
        1 => Answer::unapplied(Reply::Close),
        2 => Answer::applied_but(Reply::Reset),
        3 => Answer::applied_but(Reply::Fixed(StatusCode::BAD_GATEWAY, vec![], vec![])),
        _ => Answer::honest(),
    }
}

/// Log-normal, half within 60 ms, one in a hundred later than 2 s; half of it before the change.
fn slow(random: &mut StdRng) -> Answer {
    // Irwin and Hall's sum of twelve is as good as normal here.
    let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    let pause = Duration::from_secs_f64((0.06 * (1.5 * normal).exp()).min(5.0));
    let gate = opened_in(pause);
    if random.random() {
        Answer::honest().once_open(&gate)
    } else {
        Answer::honest().replied_once_open(&gate)
    }
}

fn hostile(random: &mut StdRng, late: &mut HashMap<String, Instant>, arrival: &Arrival) -> Answer {
    let fixed = |status, headers: &[(&str, &str)], body: &str| {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Reply::Fixed(status, headers.collect(), body.as_bytes().to_vec())
    };
    let id = arrival.webhook_id();
    if let Some(until) = late.get(id) {
        // The first copy is still in its queue.
        if Instant::now() < *until {
            return Answer::error(StatusCode::CONFLICT, "row_changed");
        }
        return Answer::honest();
    }
    let ok = StatusCode::OK;
    match random.random_range(0..100) {
        0..4 => {
            late.insert(id.to_owned(), Instant::now() + LATE);
            Answer::honest().once_open(&opened_in(LATE))
        }
        4 => Answer::unapplied(fixed(
            StatusCode::TOO_MANY_REQUESTS,
            &[("retry-after", "1")],
            "",
        )),
        5 => Answer::status(StatusCode::UNAUTHORIZED),
        6 => Answer::status(StatusCode::GONE),
        7 => Answer::unapplied(fixed(
            StatusCode::FOUND,
            &[("location", "http://127.0.0.1:1/")],
            "",
        )),
        8..11 => Answer::applied_but(fixed(ok, &[], "{}")),
        11..14 => Answer::applied_but(fixed(ok, &[], "<html>Welcome</html>")),
        14..17 => Answer::unapplied(fixed(
            ok,
            &[],
            r#"{"rows":[{"id":"globex~foreign","token":"globex~1"}]}"#,
        )),
        17..20 => Answer::applied_but(Reply::Silence),
        20..22 => Answer::unapplied(Reply::HeadOnly),
        22..24 => Answer::applied_but(Reply::Raw(b"HTTP/1.1 200\r\n\r\n\0\0\r\nHTTP/0.9".to_vec())),
        24..26 => Answer::applied_but(fixed(ok, &[("content-encoding", "gzip")], "\u{1f}")),
        26..28 => Answer::status(StatusCode::REQUEST_TIMEOUT),
        _ => Answer::honest(),
    }
}

fn opened_in(pause: Duration) -> Gate {
    let gate = Gate::closed();
    let opens = gate.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends by itself, soon")]
    tokio::spawn(async move {
        sleep(pause).await;
        opens.open();
    });
    gate
}

/// The customers' apps change rows too; what they changed, by organization, in order.
pub(super) fn start_outside(world: &Arc<World>, seed: u64) -> JoinSet<(usize, Vec<Event>)> {
    let mut outside = JoinSet::new();
    for (number, organization) in world.organizations.iter().enumerate() {
        for (place, sink) in organization.sinks.iter().enumerate() {
            if !matches!(sink.model, "good" | "flaky") {
                sink.endpoint.without_feed();
                continue;
            }
            sink.endpoint.echo_commits();
            let random = StdRng::seed_from_u64(seed ^ (1 << 40) ^ (place as u64));
            let world = Arc::clone(world);
            outside.spawn(async move { (number, change(&world, (number, place), random).await) });
        }
    }
    outside
}

/// An event that is not visible yet: when it will be, its place, its name, its row.
type Hidden = (Instant, u64, String, String);

async fn change(
    world: &World,
    (organization, sink): (usize, usize),
    mut random: StdRng,
) -> Vec<Event> {
    let name = world.organizations[organization].name;
    let Sink {
        endpoint, model, ..
    } = &world.organizations[organization].sinks[sink];
    let mut events = Vec::new();
    let mut hidden: VecDeque<Hidden> = VecDeque::new();
    let row = |event: &str| Row::from_iter([("token".to_owned(), event.into())]);
    let told = |id: &str, row: &str| Event {
        id: id.to_owned(),
        row: history::Row {
            model: (*model).to_owned(),
            id: row.to_owned(),
        },
    };
    for count in 0_u64.. {
        let over = world.over.is_cancelled();
        while let Some((_, place, event, id)) =
            hidden.pop_front_if(|(at, ..)| over || *at <= Instant::now())
        {
            endpoint.write_outside_at(Some(place), &event, (model, &id, row(&event)));
            events.push(told(&event, &id));
        }
        if over {
            break;
        }
        sleep(Duration::from_millis(random.random_range(50..400))).await;
        let event = format!("{name}~out-{model}-{count}");
        // One in five changes a row that clients change as well.
        let shared = random.random_ratio(1, 5);
        let id = format!(
            "{}{}",
            if shared { "w" } else { "o" },
            random.random_range(0..8)
        );
        if hidden.iter().any(|(.., row)| *row == id) {
            continue;
        }
        match random.random_range(0..10) {
            0 | 1 if !shared => {
                let behind = format!("{event}-behind");
                let other = format!("x{}", random.random_range(0..8));
                let place = endpoint.leave_a_place_before(&behind, (model, &other, row(&behind)));
                events.push(told(&behind, &other));
                let pause = Duration::from_millis(random.random_range(300..2_000));
                hidden.push_back((Instant::now() + pause, place, event, id));
            }
            choice => {
                endpoint.write_outside_at(None, &event, (model, &id, row(&event)));
                events.push(told(&event, &id));
                if choice == 2 {
                    endpoint.tell_again(&event);
                }
            }
        }
    }
    events
}

/// Endpoints that say 410 are mended by their operators.
pub(super) async fn enable(world: &World, door: usize) {
    for organization in &world.organizations {
        for sink in &organization.sinks {
            let name = format!("dataSources/{}", sink.model);
            let mut sources = organization.doors[door].sources();
            let request = proto::v1::GetDataSourceRequest { name: name.clone() };
            let Ok(source) = sources.get(request).await else {
                continue;
            };
            if source.into_inner().state() == proto::v1::DataSourceState::Disabled {
                let request = proto::v1::EnableDataSourceRequest {
                    name,
                    ..proto::v1::EnableDataSourceRequest::default()
                };
                // Who does not get through tries again.
                drop(sources.enable(request).await);
            }
        }
    }
}

/// What the row of a model is worth: its token.
pub(super) fn value(row: &[u8]) -> String {
    let row: serde_json::Value = serde_json::from_slice(row).unwrap_or_else(|_| json!({}));
    row["token"].as_str().unwrap_or_default().to_owned()
}
