//! The binary `coordinator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    coordinator::main()
}
