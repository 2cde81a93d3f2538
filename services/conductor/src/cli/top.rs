//! `conductor top`: the live cell on one screen, from the log alone.
//!
//! Reading order: [`seen`] (what the records tell beside the state: [`pace`], [`waits`],
//! [`failures`]) → [`view`] (all that is shown, and what it costs) → [`data`] and [`text`]
//! (the view as JSON and as words) → [`screen`] (on a terminal, and what keys do) →
//! [`following`] (reads the log) → [`live`] (the loop around it all).
//!
//! Only the last two do anything; the rest are functions of a state, what was seen, and a time.

mod data;
mod failures;
mod following;
mod live;
mod pace;
mod screen;
mod seen;
mod text;
mod view;
mod waits;
#[cfg(test)]
mod world;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use self::following::Following;
use crate::exit::{Exit, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;

/// Twice a second is as often as anybody reads.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// Rates are known for the last minute only.
const INTERVAL_MAX: Duration = Duration::from_secs(pace::KEPT_S);

/// Watch the cell live: throughput, queues, agents, last failures
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// How often the picture is drawn anew: 500ms to 1m; rates are means over as long
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one picture and end, as it does where standard output is no terminal; rates are
    /// means over the last minute
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::run::duration(text)?;
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("{text:?} is not between 500ms and 1m"))
    }
}

impl TopArgs {
    /// Whether it takes the screen for itself: then nothing else may write there.
    pub(crate) fn draws(&self, format: Format) -> bool {
        !self.once && format == Format::Table && std::io::stdout().is_terminal()
    }
}

/// Shows the cell until somebody quits, or once.
pub(crate) async fn run(args: TopArgs, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    let following = Following::open(&connection).await?;
    if args.draws(settings.output) {
        return live::run(following, args.interval).await;
    }
    once(following, settings.output).await
}

/// One picture after everything that the log held when it was asked.
async fn once(mut following: Following, format: Format) -> Outcome {
    following.read(None).await?;
    let view = following.view(pace::KEPT_S);
    match format {
        Format::Table => out::line(&text::plain(&view)),
        _ => out::one(format, &data::json(&view)),
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_drawn_for_more_than_twice_a_second() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(
            interval("100ms"),
            Err("\"100ms\" is not between 500ms and 1m".to_owned())
        );
        assert!(interval("often").is_err());
    }
}
