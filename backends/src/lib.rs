//! What each backing does with operations, and what comes back.
//!
//! A model's rows live in one of two places: with the coordinator itself ([`managed`]) or in the
//! customer's database behind one HTTPS endpoint ([`data_source`]). Both speak of the same
//! [`operation`]s over the same [`json`] and answer the same [`query`]. Nothing here knows of SQL
//! or gRPC.

pub mod data_source;
pub mod json;
pub mod managed;
pub mod operation;
pub mod query;
