//! The reaper as a program of its own, for tests that have no conductor binary.

fn main() -> std::process::ExitCode {
    let mut args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if args
        .first()
        .is_some_and(|first| first == conductor_agent::reaper::SUBCOMMAND)
    {
        args.remove(0);
    }
    conductor_agent::reaper::main(&args)
}
