//! The customer's database, behind one HTTPS endpoint of the customer's app.
//!
//! A request's way: [`wire`] writes its body, [`client`] judges the address ([`egress`]), signs
//! ([`sign`]), sends, and reads the answer under a deadline and a size cap into an
//! [`exchange::Exchange`]; [`classify`] says what the answer means, and [`schedule`] when to try
//! again.

pub mod classify;
pub mod client;
pub mod clock;
pub mod egress;
pub mod endpoint;
pub mod excerpt;
pub mod exchange;
#[cfg(test)]
mod name_server;
pub mod retry_after;
pub mod schedule;
pub mod sign;
pub mod wire;
