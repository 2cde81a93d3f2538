//! An answer on its way through: what comes in goes out, byte for byte, and is metered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{ANSWER_TIME, Shared};
use crate::meter::Meter;

/// Why an answer ends too early.
#[derive(Debug)]
pub(super) struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// An answer's body. It is counted when it is over, however that comes about: a client that goes
/// away drops it.
pub(super) struct Metered {
    incoming: Incoming,
    pause: Pin<Box<Sleep>>,
    meter: Option<(Meter, String, Arc<Shared>)>,
}

impl Metered {
    /// `asked` is the model that was asked for; `None` in place of a meter counts nothing.
    pub(super) fn new(incoming: Incoming, meter: Option<(Meter, String, Arc<Shared>)>) -> Self {
        Self {
            incoming,
            pause: Box::pin(tokio::time::sleep(ANSWER_TIME)),
            meter,
        }
    }

    fn settle(&mut self) {
        if let Some((meter, asked, shared)) = self.meter.take() {
            shared.count(&asked, &meter.finish());
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause.as_mut().reset(Instant::now() + ANSWER_TIME);
                if let (Some(data), Some((meter, ..))) = (frame.data_ref(), &mut self.meter) {
                    meter.push(data);
                }
                // Counted before the client knows that it is over, and asks for more.
                if self.incoming.is_end_stream() {
                    self.settle();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                self.settle();
                Poll::Ready(Some(Err(Broken(e.to_string()))))
            }
            Poll::Ready(None) => {
                self.settle();
                Poll::Ready(None)
            }
            Poll::Pending => match self.pause.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    self.settle();
                    let what = format!("the provider said nothing for {ANSWER_TIME:?}");
                    Poll::Ready(Some(Err(Broken(what))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
