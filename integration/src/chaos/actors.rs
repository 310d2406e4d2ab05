//! What customers do: how their endpoints answer, and what they change by themselves.

use std::collections::VecDeque;
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

/// Makes an endpoint answer as its model's name says.
pub(super) fn play(sink: &Sink, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ u64::from(hash(sink.model)));
    let mut answer: Box<dyn FnMut() -> Answer + Send> = match sink.model {
        "flaky" => Box::new(move || flaky(&mut random)),
        "slow" => Box::new(move || slow(&mut random)),
        "hostile" => Box::new(move || hostile(&mut random)),
        _ => Box::new(Answer::honest),
    };
    let custody = sink.custody.clone();
    sink.endpoint
        .behave(move |arrival| rule(arrival).unwrap_or_else(|| custody.over(arrival, answer())));
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
    (hash(name).is_multiple_of(20) && !name.contains("rows"))
        .then(|| Answer::error(StatusCode::CONFLICT, "rule_broken"))
}

fn hash(name: &str) -> u32 {
    name.bytes().fold(7_u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    })
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

fn hostile(random: &mut StdRng) -> Answer {
    let fixed = |status, headers: &[(&str, &str)], body: &str| {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Reply::Fixed(status, headers.collect(), body.as_bytes().to_vec())
    };
    let ok = StatusCode::OK;
    match random.random_range(0..100) {
        0 => Answer::unapplied(fixed(
            StatusCode::TOO_MANY_REQUESTS,
            &[("retry-after", "1")],
            "",
        )),
        1 => Answer::status(StatusCode::UNAUTHORIZED),
        2 => Answer::status(StatusCode::GONE),
        3 => Answer::unapplied(fixed(
            StatusCode::FOUND,
            &[("location", "http://127.0.0.1:1/")],
            "",
        )),
        4..7 => Answer::applied_but(fixed(ok, &[], "{}")),
        7..10 => Answer::applied_but(fixed(ok, &[], "<html>Welcome</html>")),
        10..13 => Answer::unapplied(fixed(
            ok,
            &[],
            r#"{"rows":[{"id":"globex~foreign","token":"globex~1"}]}"#,
        )),
        13..16 => Answer::applied_but(Reply::Silence),
        16..18 => Answer::unapplied(Reply::HeadOnly),
        18..20 => Answer::applied_but(Reply::Raw(b"HTTP/1.1 200\r\n\r\n\0\0\r\nHTTP/0.9".to_vec())),
        20..22 => Answer::applied_but(fixed(ok, &[("content-encoding", "gzip")], "\u{1f}")),
        22..24 => Answer::status(StatusCode::REQUEST_TIMEOUT),
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
