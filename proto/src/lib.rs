//! The coordinator's gRPC interface: the messages, clients and servers of `ablo.coordinator.v1`.
//!
//! The `.proto` files beside this crate are the reference; the code in `gen/` is made from them and
//! committed, and `tests/generated.rs` proves that it is fresh.

/// `ablo.coordinator.v1`
#[expect(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    include!("gen/ablo.coordinator.v1.rs");
}

/// The encoded `FileDescriptorSet` of [`v1`], for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");
