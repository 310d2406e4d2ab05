//! What the tests, the demo and the benchmarks share: a Postgres to test with, endpoints that play
//! a customer's part, and a customer's app to copy from.

pub mod app;
pub mod attentive;
pub mod chaos;
pub mod customer;
pub mod demo;
pub mod endpoint;
pub mod fuzz;
pub mod history;
pub mod log_check;
pub mod node;
pub mod postgres;
pub mod process;
pub mod speed;
