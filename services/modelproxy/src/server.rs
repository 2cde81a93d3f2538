//! The proxy of one attempt.

mod handle;
mod metered;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::Usage;
use conductor_protocol::terms::{Budget, OnReached};
use hyper::Uri;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::beside::Beside;
use crate::budget::{Ledger, Limit};
use crate::keys::Keys;
use crate::listen::Listener;
use crate::meter::Answered;
use crate::policy::Policy;
use crate::prices::Prices;
use crate::provider::Provider;
use crate::upstream::Upstream;

/// Connections of one attempt at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// Largest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Longest that an answer may take to begin, and that it may pause.
const ANSWER_TIME: Duration = Duration::from_secs(600);

/// How a provider is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it is.
    pub url: Uri,
    /// The real key.
    pub keys: Keys,
}

/// What one attempt may do.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What programs inside have for a key.
    pub placeholder: String,
    /// Models and ways out.
    pub policy: Policy,
    /// What its task may spend in all.
    pub budget: Budget,
    /// What earlier attempts spent of that.
    pub before: Usage,
}

/// What the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// What this attempt used so far, in all.
    Metered(Usage),
    /// A limit is reached: something was asked beyond it, and refused or held.
    Reached {
        /// Which.
        limit: Limit,
        /// For people: what was used of it.
        account: String,
        /// Whether requests are held until somebody decides.
        is_held: bool,
    },
    /// The provider has no more for now.
    Throttled {
        /// Until when, in milliseconds since 1970, where it says so.
        until_ms: Option<u64>,
    },
    /// A request was refused for good.
    Refused(OutcomeClass, String),
}

/// Whether requests beyond the budget wait, or what was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    Open,
    Held,
    Denied,
}

/// What all requests of an attempt share.
#[derive(Debug)]
struct Shared {
    /// The way out, where it may ask models at all.
    upstream: Option<Upstream>,
    accesses: BTreeMap<Provider, Access>,
    prices: Arc<Prices>,
    placeholder: String,
    policy: Policy,
    asks: bool,
    ledger: Arc<Mutex<Ledger>>,
    gate: watch::Sender<Gate>,
    reports: mpsc::UnboundedSender<Report>,
    beside: Option<Arc<dyn Beside>>,
}

/// What a task has left of its budget, for whoever wants to know.
#[derive(Clone, Debug)]
pub struct Account(Arc<Mutex<Ledger>>);

impl Account {
    /// What is left of each limit that there is, but for time.
    pub fn left(&self) -> Budget {
        lock(&self.0).left()
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // Sums stay sums, whoever panicked.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    fn report(&self, report: Report) {
        // An attempt that has ended hears nothing more.
        let _ = self.reports.send(report);
    }

    /// Counts an answer and says so.
    fn count(&self, asked: &str, answered: &Answered) {
        let model = answered.model.as_deref().unwrap_or(asked);
        let cost = self.prices.cost(model, &answered.tokens);
        let cost = cost.or_else(|| self.prices.cost(asked, &answered.tokens));
        if cost.is_none() {
            tracing::warn!(
                model,
                "no price is known: its tokens count, its cost does not"
            );
        }
        let usage = {
            let mut ledger = self.ledger();
            ledger.add(answered, cost);
            ledger.spent().clone()
        };
        self.report(Report::Metered(usage));
    }

    /// Returns once there is something to spend; the limit that is reached, where there will be
    /// nothing.
    async fn admit(&self) -> Result<(), String> {
        let mut gate = self.gate.subscribe();
        loop {
            let decided = *gate.borrow_and_update();
            let reached = {
                let ledger = self.ledger();
                ledger.reached().map(|limit| (limit, ledger.account(limit)))
            };
            let Some((limit, account)) = reached else {
                return Ok(());
            };
            let is_held = self.asks && decided != Gate::Denied;
            let is_first = !is_held
                || self.gate.send_if_modified(|gate| {
                    let is_open = *gate == Gate::Open;
                    if is_open {
                        *gate = Gate::Held;
                    }
                    is_open
                });
            if is_first {
                let account = account.clone();
                self.report(Report::Reached {
                    limit,
                    account,
                    is_held,
                });
            }
            if !is_held {
                return Err(format!("the task's budget is used up: {account}"));
            }
            // It ends with the attempt, and so does this request.
            let is_changed = gate.wait_for(|gate| *gate != Gate::Held).await.is_ok();
            if !is_changed {
                return Err("the attempt is over".to_owned());
            }
        }
    }
}

/// The proxy of one attempt. Dropped, it is gone, and with it whatever is under way.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Proxy {
    /// Serves an attempt on these listeners; what is noticed comes out of the receiver. Without an
    /// `upstream` no model is asked, and only what stands `beside` them answers.
    pub fn start(
        listeners: Vec<Listener>,
        terms: Terms,
        upstream: Option<Upstream>,
        accesses: BTreeMap<Provider, Access>,
        prices: Arc<Prices>,
        beside: Option<Arc<dyn Beside>>,
    ) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (reports, reported) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            upstream,
            accesses,
            prices,
            placeholder: terms.placeholder,
            policy: terms.policy,
            asks: terms.budget.on_reached == OnReached::Ask,
            ledger: Arc::new(Mutex::new(Ledger::new(terms.budget, terms.before))),
            gate: watch::Sender::new(Gate::Open),
            reports,
            beside,
        });
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (stop, mut tasks) = (watch::Sender::new(false), JoinSet::new());
        for listener in listeners {
            let (shared, permits) = (Arc::clone(&shared), Arc::clone(&permits));
            tasks.spawn(accept(listener, shared, permits, stop.subscribe()));
        }
        (
            Self {
                shared,
                stop,
                tasks,
            },
            reported,
        )
    }

    /// Ends whatever is under way; by then it is counted.
    pub async fn close(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Somebody allows as much again as `extra` says: what is held goes on.
    pub fn extend(&self, extra: &Budget) {
        self.shared.ledger().extend(extra);
        self.shared.gate.send_replace(Gate::Open);
    }

    /// Somebody allows no more: what is held is refused.
    pub fn deny(&self) {
        self.shared.gate.send_replace(Gate::Denied);
    }

    /// What is left of the budget, from now on.
    pub fn account(&self) -> Account {
        Account(Arc::clone(&self.shared.ledger))
    }

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        self.shared.ledger().spent().clone()
    }
}

async fn accept(
    listener: Listener,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    // Connections end with the one that accepts them.
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
        let (permit, io) = tokio::select! {
            next = next => next,
            // Whoever could say so is gone, which means the same.
            _ = stopped => break,
            // Reaped as they end, so that nothing grows.
            Some(_) = connections.join_next() => continue,
        };
        let io = match io {
            Ok(io) => io,
            Err(e) => {
                tracing::warn!(error = %e, "a connection of an attempt was lost");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = permit else { return };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, std::convert::Infallible>(handle::handle(shared, request).await) }
            });
            // A client that goes away needs no answer.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
            drop(permit);
        });
    }
    connections.shutdown().await;
}
