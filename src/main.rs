//! The `mcp` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcp::cli::main()
}
