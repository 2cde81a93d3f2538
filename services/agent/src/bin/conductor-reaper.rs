//! The reaper as a program of its own, for tests that have no conductor binary.

fn main() -> std::process::ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    conductor_agent::reaper::main(&args)
}
