//! The `verikd` program: arguments to session, simulator or capture, to shell, to exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
