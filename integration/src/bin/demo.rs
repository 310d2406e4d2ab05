//! Two real data sets through the coordinator, a crash on the way, and every row compared after.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration::process::role().unwrap_or_else(integration::demo::main)
}
