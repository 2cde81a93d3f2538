//! One request, from its arrival to the beginning of its answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use conductor_protocol::OutcomeClass;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};

use super::metered::{Broken, Metered};
use super::{ANSWER_TIME, Access, REQUEST_BYTES_MAX, Report, Shared};
use crate::beside::Beside;
use crate::keys::{Key, Scheme};
use crate::meter::Meter;
use crate::policy::{Asked, Purpose, Route, route};
use crate::provider::Provider;
use crate::throttle;
use crate::upstream::Upstream;

type Answer = Response<BoxBody<Bytes, Broken>>;

/// How long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(120);

/// Headers that belong to one connection, or that the proxy sets itself.
const DROPPED: [HeaderName; 12] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::AUTHORIZATION,
    header::COOKIE,
    // What is metered has to be read.
    header::ACCEPT_ENCODING,
];
const KEY_HEADER: &str = "x-api-key";
const NOT_THE_KEY: &str = "this is not the key that this attempt was given";

pub(super) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let beside = shared.beside.as_deref();
    if let Some(beside) = beside.filter(|b| b.path() == request.uri().path()) {
        return answer_beside(beside, &shared.placeholder, request).await;
    }
    let route = match route(request.method(), request.uri().path()) {
        Ok(route) => route,
        Err(refusal) => {
            tracing::debug!(path = request.uri().path(), "refused: {}", refusal.message);
            return say(Provider::Anthropic, refusal.status, &refusal.message);
        }
    };
    let provider = route.provider;
    match pass(&shared, &route, request).await {
        Ok(answer) => answer,
        Err((status, message)) => say(provider, status, &message),
    }
}

/// Has what stands beside the models answer, if whoever asks bears the placeholder as its token.
async fn answer_beside(
    beside: &dyn Beside,
    placeholder: &str,
    request: Request<Incoming>,
) -> Answer {
    if bearer(request.headers()) != Some(placeholder) {
        let mut answer = say(Provider::OpenAi, 401, NOT_THE_KEY);
        let scheme = HeaderValue::from_static("Bearer");
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
        return answer;
    }
    let (head, body) = beside.answer(request).await.into_parts();
    Response::from_parts(head, body.map_err(|never| match never {}).boxed())
}

/// An answer of our own.
fn say(provider: Provider, status: u16, message: &str) -> Answer {
    let body = Full::new(Bytes::from(provider.error(status, message)));
    let mut answer = Response::new(BodyExt::boxed(body.map_err(|never| match never {})));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    // Some clients ask this header before they look at the status.
    let no = HeaderValue::from_static("false");
    answer.headers_mut().insert("x-should-retry", no);
    answer
}

async fn pass(
    shared: &Arc<Shared>,
    route: &Route,
    request: Request<Incoming>,
) -> Result<Answer, (u16, String)> {
    let empty = || BodyExt::boxed(Full::new(Bytes::new()).map_err(|never| match never {}));
    if route.purpose == Purpose::Greeting {
        return Ok(Response::new(empty()));
    }
    if !has_placeholder(request.headers(), &shared.placeholder) {
        return Err((401, NOT_THE_KEY.to_owned()));
    }
    let access = shared.accesses.get(&route.provider);
    let Some((access, upstream)) = access.zip(shared.upstream.as_ref()) else {
        let message = format!("this agent has no key for {}", route.provider.as_str());
        return Err((403, message));
    };
    let (head, body) = request.into_parts();
    let mut body = read(body).await?;
    let asked = if route.purpose == Purpose::List {
        None
    } else {
        let checked = shared.policy.check(route.purpose, &body);
        Some(checked.map_err(|r| {
            if r.status == 403 {
                shared.report(Report::Refused(OutcomeClass::Denied, r.message.clone()));
            }
            (r.status, r.message)
        })?)
    };
    if let Some(asked) = &asked {
        check_price(shared, route, asked)?;
        if asked.lacks_usage {
            body = with_usage(&body).ok_or((400, "stream_options is no object".to_owned()))?;
        }
    }
    if matches!(route.purpose, Purpose::Answer(_)) {
        shared.admit().await.map_err(|message| (403, message))?;
    }
    let uri = join(&access.url, &route.path, head.uri.query())?;
    let mut outgoing = Request::new(Full::new(body));
    *outgoing.method_mut() = head.method;
    *outgoing.uri_mut() = uri;
    *outgoing.headers_mut() = cleaned(head.headers);
    let identity = HeaderValue::from_static("identity");
    outgoing
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, identity);
    let answer = send(shared, (access, upstream), &outgoing).await?;
    Ok(hand_back(shared, route, asked, &outgoing, answer))
}

/// Reads a request's body, which has to be looked at as a whole.
async fn read(body: Incoming) -> Result<Bytes, (u16, String)> {
    let reading = Limited::new(body, REQUEST_BYTES_MAX).collect();
    match tokio::time::timeout(REQUEST_TIME, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() => Err((
            413,
            format!("requests may have {REQUEST_BYTES_MAX} bytes at most"),
        )),
        Ok(Err(e)) => Err((400, format!("the request broke off: {e}"))),
        Err(_) => Err((400, "the request did not arrive in time".to_owned())),
    }
}

/// Whether a request bears the placeholder, wherever its kind of client puts it.
fn has_placeholder(headers: &HeaderMap, placeholder: &str) -> bool {
    let key = headers.get(KEY_HEADER).and_then(|v| v.to_str().ok());
    key == Some(placeholder) || bearer(headers) == Some(placeholder)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

/// Where money is limited, what is asked must have a price.
fn check_price(shared: &Shared, route: &Route, asked: &Asked) -> Result<(), (u16, String)> {
    let costs = matches!(route.purpose, Purpose::Answer(_));
    if !costs || !shared.policy.counts_money || shared.prices.knows(&asked.model) {
        return Ok(());
    }
    let message = format!(
        "the budget is in money, and no price is known of model {:?}; the agent's operator can name it in the file of CONDUCTOR_PRICES",
        asked.model
    );
    shared.report(Report::Refused(OutcomeClass::Budget, message.clone()));
    Err((403, message))
}

/// The body of a chat that has its stream end with its usage.
fn with_usage(body: &[u8]) -> Option<Bytes> {
    let mut body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let fields = body.as_object_mut()?;
    let options = fields
        .entry("stream_options")
        .or_insert(serde_json::Value::Null);
    if options.is_null() {
        *options = serde_json::json!({});
    }
    options
        .as_object_mut()?
        .insert("include_usage".to_owned(), true.into());
    Some(Bytes::from(body.to_string()))
}

/// A path below a base URL, with its query.
fn join(base: &Uri, path: &str, query: Option<&str>) -> Result<Uri, (u16, String)> {
    let wrong = || (502, "the provider's URL is none".to_owned());
    let prefix = base.path().trim_end_matches('/');
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut parts = base.clone().into_parts();
    let path = format!("{prefix}{path}{query}")
        .parse()
        .map_err(|_| wrong())?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// Headers without what belongs to the connection, or says whose the request is.
fn cleaned(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in DROPPED.iter().chain(&named) {
        headers.remove(name);
    }
    for name in [KEY_HEADER, "keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
    headers
}

fn put_key(headers: &mut HeaderMap, key: &Key) -> Result<(), (u16, String)> {
    let (name, value) = match key.scheme {
        Scheme::ApiKey => (KEY_HEADER, key.secret.expose().to_owned()),
        Scheme::Bearer => ("authorization", format!("Bearer {}", key.secret.expose())),
    };
    let value = HeaderValue::from_str(&value);
    let mut value = value.map_err(|_| (403, "the agent's key is no key".to_owned()))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// Sends a request under the real key: again under another, should the provider not take it.
async fn send(
    shared: &Shared,
    (access, upstream): (&Access, &Upstream),
    request: &Request<Full<Bytes>>,
) -> Result<Response<Incoming>, (u16, String)> {
    let refuse = |message: String| {
        shared.report(Report::Refused(OutcomeClass::Auth, message.clone()));
        (403, message)
    };
    let mut last: Option<Key> = None;
    loop {
        let key = access.keys.get().await.map_err(refuse)?;
        if last.as_ref() == Some(&key) {
            return Err(refuse(REFUSED_KEY.to_owned()));
        }
        let mut request = request.clone();
        put_key(request.headers_mut(), &key)?;
        let sent = tokio::time::timeout(ANSWER_TIME, upstream.send(request)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err((502, format!("the model service cannot be reached: {e}"))),
            Err(_) => {
                return Err((
                    504,
                    format!("the model service said nothing for {ANSWER_TIME:?}"),
                ));
            }
        };
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let is_second = last.is_some();
        if is_second || !access.keys.refused(&key).await {
            // A 401 would be repeated by the client for minutes.
            return Err(refuse(REFUSED_KEY.to_owned()));
        }
        last = Some(key);
    }
}

const REFUSED_KEY: &str = "the model service refused the agent's key";

/// The provider's answer on its way to the client.
fn hand_back(
    shared: &Arc<Shared>,
    route: &Route,
    asked: Option<Asked>,
    request: &Request<Full<Bytes>>,
    answer: Response<Incoming>,
) -> Answer {
    let (mut head, body) = answer.into_parts();
    if head.status == StatusCode::TOO_MANY_REQUESTS {
        let until_ms = throttle::until_ms(&head.headers, now_ms());
        shared.report(Report::Throttled { until_ms });
    }
    let meter = match (route.purpose, asked) {
        (Purpose::Answer(api), Some(asked)) if head.status.is_success() => {
            let kind = head.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
            let bytes = hyper::body::Body::size_hint(request.body()).lower();
            Some((
                Meter::new(api, kind, bytes),
                asked.model,
                Arc::clone(shared),
            ))
        }
        _ => None,
    };
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::SET_COOKIE,
    ] {
        head.headers.remove(name);
    }
    head.headers.remove("keep-alive");
    Response::from_parts(head, Metered::new(body, meter).boxed())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_to_what_the_provider_is_reached_by() {
        let join = |base: &str, path, query| {
            super::join(&base.parse().unwrap(), path, query)
                .unwrap()
                .to_string()
        };
        assert_eq!(
            join(
                "https://api.anthropic.com",
                "/v1/messages",
                Some("beta=true")
            ),
            "https://api.anthropic.com/v1/messages?beta=true"
        );
        assert_eq!(
            join("http://127.0.0.1:9/gw/v1/", "/responses", None),
            "http://127.0.0.1:9/gw/v1/responses"
        );
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("x-api-key", "p"),
            ("authorization", "Bearer p"),
            ("accept-encoding", "gzip"),
            ("host", "model.conductor"),
            ("anthropic-version", "2023-06-01"),
            ("x-claude-code-session-id", "s"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let cleaned = cleaned(headers);
        let mut left: Vec<&str> = cleaned.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["anthropic-version", "x-claude-code-session-id"]);
    }

    #[test]
    fn a_chat_is_made_to_say_what_it_took() {
        let with = |body: &str| {
            with_usage(body.as_bytes()).map(|b| String::from_utf8(b.to_vec()).unwrap())
        };
        assert_eq!(
            with(r#"{"model":"m","stream":true}"#).unwrap(),
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(
            with(r#"{"stream_options":{"include_usage":false,"x":1}}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true,"x":1}}"#
        );
        assert_eq!(
            with(r#"{"stream_options":null}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(with(r#"{"stream_options":7}"#), None);
    }
}
