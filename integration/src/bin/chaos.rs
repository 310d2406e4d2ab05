//! Tries to break the promises, and says whether one broke.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration::process::role().unwrap_or_else(integration::chaos::main)
}
