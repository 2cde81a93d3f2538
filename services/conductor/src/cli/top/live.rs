//! The loop: the log is read beside it, so that keys are heard while much is read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use conductor_eventlog::LogError;
use conductor_replica::reader::ReadError;

use super::following::Following;
use super::screen::{Screen, Wish};
use super::view::View;
use crate::exit::{Exit, Failure, Outcome};

/// How often the thread that waits for keys sees whether anybody still wants them.
const KEYS: Duration = Duration::from_millis(200);

/// Draws until somebody quits, the log cannot be read, or the terminal is gone.
pub(super) async fn run(mut following: Following, interval: Duration) -> Outcome {
    let over_s = interval.as_secs().max(1);
    let mut stop = stops()?;
    let (shown, mut views) = watch::channel(Arc::new(following.view(over_s)));
    let mut screen = Screen::new(Arc::clone(&views.borrow_and_update()));
    let _restored = Restored;
    let mut terminal = ratatui::try_init().map_err(|e| no_terminal(&e))?;
    let reading = tokio::spawn(follow(following, interval, shown));
    let mut keys = keys();
    loop {
        terminal
            .draw(|frame| screen.draw(frame))
            .map_err(|e| no_terminal(&e))?;
        tokio::select! {
            changed = views.changed() => match changed {
                Ok(()) => screen.show(Arc::clone(&views.borrow_and_update())),
                Err(_) => return ended(reading).await,
            },
            key = keys.recv() => match key {
                Some(Ok(event)) if screen.take(&event) == Wish::Quit => return Ok(Exit::Ok),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(no_terminal(&e)),
                None => return Err(no_terminal(&io::ErrorKind::BrokenPipe.into())),
            },
            _ = stop.recv() => return Ok(Exit::Ok),
        }
    }
}

/// Gives the terminal back, whatever happens. A panic gives it back before it is said (the hook
/// that `ratatui::try_init` installs), and once more does no harm.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        // Where the terminal itself is gone there is nothing to give back.
        let _ = ratatui::try_restore();
    }
}

fn no_terminal(e: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("the terminal cannot be used: {e}"))
        .hint("`conductor top --once` prints one picture as plain text")
}

/// Reads on and on, and shows a view at each interval.
async fn follow(
    mut following: Following,
    interval: Duration,
    shown: watch::Sender<Arc<View>>,
) -> Outcome<()> {
    let over_s = interval.as_secs().max(1);
    // However seldom somebody looks, the log is asked about once a second: what came since then
    // tells the server's time.
    let looks = u32::try_from(interval.as_secs()).unwrap_or(1).max(1);
    let pause = interval / looks;
    let mut ticks = tokio::time::interval(pause);
    // Whoever is late reads what there is; nothing is gained by looking twice.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        for _ in 0..looks {
            ticks.tick().await;
            following.look(pause).await.map_err(unreadable)?;
        }
        if shown.send(Arc::new(following.view(over_s))).is_err() {
            return Ok(());
        }
    }
}

fn unreadable(e: ReadError) -> Failure {
    let is_lost = matches!(e, ReadError::Log(LogError::Lost(_)));
    let failure = Failure::from(e);
    if is_lost {
        return failure.hint("start it again: it begins anew with what the log holds now");
    }
    failure
}

/// Why the reading ended.
async fn ended(reading: JoinHandle<Outcome<()>>) -> Outcome {
    match reading.await {
        Ok(Ok(())) => Ok(Exit::Ok),
        Ok(Err(failure)) => Err(failure),
        Err(e) => Err(
            Failure::new(Exit::Failure, format!("reading broke off: {e}"))
                .hint("this is a bug; `conductor top --once` may still work"),
        ),
    }
}

/// What somebody does at the terminal. On a thread of its own, since waiting for it blocks; it
/// ends soon after nobody wants to know any more.
fn keys() -> mpsc::Receiver<io::Result<Event>> {
    let (say, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !say.is_closed() {
            let event = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(e) => Err(e),
            };
            let is_over = event.is_err();
            if say.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    });
    keys
}

/// Says when a signal asks the process to end: the terminal is given back first.
fn stops() -> Outcome<mpsc::Receiver<()>> {
    let (say, stops) = mpsc::channel(1);
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let (mut signals, say) = (signal(kind)?, say.clone());
        tokio::spawn(async move {
            signals.recv().await;
            // It may be ending already.
            let _ = say.send(()).await;
        });
    }
    Ok(stops)
}
