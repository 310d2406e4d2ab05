//! The write coordinator: see `ARCHITECTURE.md` for the life of a write through these rooms.

pub mod admit;
pub mod api;
pub mod app;
pub mod broken;
mod cli;
pub mod cluster;
pub mod config;
pub mod conformance;
pub mod courier;
pub mod decide;
mod dev;
pub mod domain;
pub mod duration;
pub mod failure;
pub mod feed;
pub mod flush;
#[cfg(test)]
mod in_memory;
pub mod keys;
pub mod lifecycle;
pub mod log;
pub mod migrate;
pub mod pages;
pub mod reads;
pub mod refusal;
pub mod retention;
pub mod schemas;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod verify;
pub mod wake;

pub use cli::main;

/// A commit is many small pieces that one thread makes and another drops.
#[cfg(not(feature = "no-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
