//! What else an attempt is answered by, over the socket of its models.

use std::convert::Infallible;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};

/// Something that an attempt asks besides its models: at a path of its own, by the same placeholder.
#[async_trait]
pub trait Beside: fmt::Debug + Send + Sync {
    /// The path, which no model has.
    fn path(&self) -> &str;

    /// Answers a request that bears the placeholder.
    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>>;
}
