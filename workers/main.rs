//! The command line of Curfew: each command is a short module; what it knows is in the library.

mod args;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let _args = args::Args::parse();
    ExitCode::SUCCESS
}
