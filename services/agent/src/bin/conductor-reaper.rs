//! The reaper as a program of its own, for tests that have no conductor binary.

fn main() -> std::process::ExitCode {
    conductor_agent::reaper::main(std::env::args_os().skip(1).collect())
}
