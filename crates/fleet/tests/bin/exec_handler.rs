//! The helper process of `handlers` as a program of its own, for tests: `mcp agent exec-handler` is the same.

fn main() -> std::process::ExitCode {
    mcp_fleet::handlers::exec_main()
}
