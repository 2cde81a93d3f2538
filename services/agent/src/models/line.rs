//! What is open for an attempt that runs, and what is noticed there.

use conductor_modelproxy::egress::Egress;
use conductor_modelproxy::{Proxy, Report};
use conductor_protocol::OutcomeClass;
use conductor_protocol::event::Usage;
use conductor_protocol::ids::UnixMs;
use conductor_protocol::terms::{Answer, Budget};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pace::Pace;
use super::settle::{self, Findings};
use super::tab::Tab;

/// What the agent is to do about what was noticed.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// To say what the task has used so far.
    Usage(Usage),
    /// To say that the provider has no more, and until when.
    Throttled(Option<UnixMs>),
    /// To ask somebody whether it may go on, though so much is used; its requests wait for
    /// [`Line::decide`].
    Ask(String),
    /// To give it a while to end by itself: nothing it asks will be answered.
    Over,
}

/// What is open for an attempt that runs. Dropped, it is closed.
#[derive(Debug)]
pub struct Line {
    pub(super) proxy: Option<Proxy>,
    pub(super) reports: Option<mpsc::UnboundedReceiver<Report>>,
    pub(super) is_metered: bool,
    pub(super) _egress: Option<Egress>,
    pub(super) before: Usage,
    pub(super) tab: Tab,
    pub(super) budget: Budget,
    pub(super) pace: Pace,
    pub(super) findings: Findings,
}

impl Line {
    /// One of which nothing is open.
    pub fn none() -> Self {
        Self {
            proxy: None,
            reports: None,
            is_metered: false,
            _egress: None,
            before: Usage::default(),
            tab: Tab::default(),
            budget: Budget::default(),
            pace: Pace::new(Budget::default()),
            findings: Findings::default(),
        }
    }

    /// Whether what it uses is metered: then the figures of its program are not needed.
    pub fn is_metered(&self) -> bool {
        self.is_metered
    }

    /// The next thing to do. It may be dropped and called again.
    pub async fn next(&mut self) -> Notice {
        loop {
            let report = match &mut self.reports {
                Some(reports) => reports.recv().await,
                None => None,
            };
            let Some(report) = report else {
                self.reports = None;
                return std::future::pending().await;
            };
            if let Some(notice) = self.take(report) {
                return notice;
            }
        }
    }

    fn take(&mut self, report: Report) -> Option<Notice> {
        match report {
            Report::Metered(usage) => {
                let total = settle::total(&self.before, &usage, None);
                self.tab.note(&total);
                let is_due = self.pace.is_due(&usage, Instant::now());
                is_due.then_some(Notice::Usage(total))
            }
            Report::Throttled { until_ms } => Some(Notice::Throttled(until_ms)),
            Report::Reached {
                account,
                is_held: true,
                ..
            } => Some(Notice::Ask(account)),
            Report::Reached { account, .. } => {
                self.findings.budget(&account).then_some(Notice::Over)
            }
            Report::Refused(class, message) => self
                .findings
                .refused(class, message)
                .then_some(Notice::Over),
        }
    }

    /// Somebody decided about a budget that is used up: as much again, or no more.
    pub fn decide(&mut self, answer: Answer) {
        let Some(proxy) = &self.proxy else { return };
        match answer {
            Answer::Allow => proxy.extend(&self.budget),
            Answer::Deny => proxy.deny(),
        }
    }

    /// Its program is gone: what was under way is counted.
    pub async fn close(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            proxy.close().await;
        }
    }

    /// What the task has used by now, where that was metered; `said` is what the program says.
    pub fn usage(&self, said: Option<Usage>) -> Option<Usage> {
        match &self.proxy {
            Some(proxy) if proxy.usage().turns > 0 => {
                Some(settle::total(&self.before, &proxy.usage(), said))
            }
            _ => said,
        }
    }

    /// Why it failed, given what its program says of that.
    pub fn failure(
        &mut self,
        said: Option<(OutcomeClass, String)>,
    ) -> Option<(OutcomeClass, String)> {
        // What was reported last may not have been looked at.
        while let Some(Ok(report)) = self.reports.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
            self.take(report);
        }
        self.findings.settle(said)
    }
}
