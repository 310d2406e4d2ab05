//! Bad input, over real gRPC against the real service: each is refused with a precise reason and
//! field, and changes nothing.

#![expect(clippy::too_many_lines, reason = "tables of cases are long")]

mod admin;
mod auth;
mod commits;
mod exact_numbers;
mod house;
mod large_answers;
mod queries;
mod reads;
mod refusal;
mod schemas;
mod sources;
mod transport;
mod wire;

pub(crate) use self::house::{House, Policy};
pub(crate) use self::refusal::{Refusal, field};
