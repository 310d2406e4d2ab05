//! Where requests meet the schema: what passes here is well-formed, and names only what exists.
//!
//! Bad input stops in this room with a precise refusal: which operation, which field, which rule.
//! Nothing here touches the database or the network.

pub mod commit;
pub mod compatibility;
mod filter;
pub mod fingerprint;
pub mod model;
pub mod query;
pub mod schema;
mod sync_group;
mod text;

pub use self::commit::commit;
pub use self::filter::Filter;
pub use self::model::{Backing, FieldFault, Model};
pub use self::schema::Schema;
pub(crate) use self::text::is_name;
