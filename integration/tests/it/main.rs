//! The coordinator as its callers and its customers see it. One binary, so that it is linked once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod answers;
mod atomic;
mod bad_input;
mod broken_answers;
mod certificates;
mod chaos;
mod clocks;
mod command;
mod conformance;
mod cost;
mod customer_app;
mod dev;
mod documents;
mod drills;
mod durable;
mod egress;
mod either_backing;
mod expiry;
mod feed;
mod flow;
mod hostile_clients;
mod keys;
mod log;
mod nodes;
mod once;
mod operate;
mod order;
mod outcomes;
mod privacy;
mod python;
mod record;
mod secrets;
mod shutdown;
mod staleness;
mod stream;
mod supervision;
mod tenants;
mod verification;
mod waiting;
mod wire;
