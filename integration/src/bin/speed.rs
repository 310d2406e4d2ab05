//! How fast it is, beside what one would otherwise use, both on this machine and in turn.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "allocations")]
    integration::speed::allocations::report();
    integration::process::role().unwrap_or_else(integration::speed::main)
}
