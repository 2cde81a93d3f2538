//! A thread that starts what dies with its parent.
//!
//! For the kernel the parent is the thread that started it, and threads of a runtime come and
//! go; this one stays for as long as the process.

use std::io;
use std::sync::{OnceLock, mpsc};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;

type Job = Box<dyn FnOnce() + Send>;

/// Starts `command` on that thread.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    static THREAD: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = THREAD.get_or_init(|| {
        let (jobs, todo) = mpsc::channel::<Job>();
        std::thread::spawn(move || todo.into_iter().for_each(|job| job()));
        jobs
    });
    let (tell, told) = mpsc::channel();
    let runtime = Handle::current();
    let job = move || {
        let _in_runtime = runtime.enter();
        // Whoever asked waits for the answer.
        let _ = tell.send(command.spawn());
    };
    let gone = |_| io::Error::other("the thread that starts programs is gone");
    jobs.send(Box::new(job))
        .map_err(|_| gone(mpsc::RecvError))?;
    told.recv().map_err(gone)?
}
