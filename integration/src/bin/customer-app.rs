//! The example of a customer's app.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration::customer::main()
}
