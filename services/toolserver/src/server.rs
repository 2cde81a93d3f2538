//! The Model Context Protocol over streamable HTTP: the only place that knows it.
//!
//! Every request stands alone, without a session: a program may as well call a tool with a single
//! request as shake hands first, and nothing has to be kept of clients that went away.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conductor_protocol::event::FieldError;
use http_body_util::combinators::BoxBody;
use hyper::body::Body;
use hyper::{Request, Response};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig,
    ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::sync::Semaphore;

use crate::attempt::Attempt;
use crate::input::STRUCTURED_BYTES_MAX;
use crate::tool::Tool;

/// The path it is asked at.
pub const PATH: &str = "/mcp";
/// What clients know the server by.
pub const NAME: &str = "conductor";
/// Calls of one attempt that may be under way; those of them that ask people wait for long. Fewer than
/// the connections an attempt may have, so that some are left for its models.
pub const CALLS_MAX: usize = 24;
/// Largest request, in bytes: the largest result, and what stands around it.
pub const REQUEST_BYTES_MAX: usize = 2 * STRUCTURED_BYTES_MAX;
/// How often a client that waits for an answer hears that it is still being waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const INSTRUCTIONS: &str = "Tools of the system that runs your task. Report progress as you go, attach files \
    that shall be kept, ask people where you must, and give your result with complete.";

/// The server of one attempt.
#[derive(Clone)]
pub struct ToolServer {
    attempt: Arc<dyn Attempt>,
    service: StreamableHttpService<Handler, NeverSessionManager>,
}

impl fmt::Debug for ToolServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolServer")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl ToolServer {
    /// The server of an attempt.
    pub fn new(attempt: Arc<dyn Attempt>) -> Self {
        let handler = Handler::new(Arc::clone(&attempt));
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_sse_keep_alive(Some(KEEP_ALIVE))
            .with_max_request_body_bytes(REQUEST_BYTES_MAX);
        let sessions = Arc::new(NeverSessionManager::default());
        Self {
            attempt,
            service: StreamableHttpService::new(move || Ok(handler.clone()), sessions, config),
        }
    }

    /// Answers a request. Whether whoever asks may is for the caller to know.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<BoxBody<Bytes, Infallible>>
    where
        B: Body + Send + 'static,
        B::Error: fmt::Display,
    {
        self.service.handle(request).await
    }
}

#[derive(Clone)]
struct Handler {
    attempt: Arc<dyn Attempt>,
    tools: Arc<[rmcp::model::Tool]>,
    calls: Arc<Semaphore>,
}

impl Handler {
    fn new(attempt: Arc<dyn Attempt>) -> Self {
        let listed: Vec<Tool> = Tool::of(attempt.as_ref()).collect();
        let has_children = listed.contains(&Tool::CreateSubtask);
        let tools = listed.into_iter().map(|tool| describe(tool, has_children));
        Self {
            attempt,
            tools: tools.collect(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
        }
    }

    async fn call(&self, tool: Tool, request: CallToolRequestParams) -> CallToolResult {
        let Ok(_permit) = self.calls.try_acquire() else {
            return refused(&[FieldError::new(
                tool.name(),
                format!("{CALLS_MAX} calls are under way, and no more are taken"),
                "that you wait until one of them is answered, then call again",
            )]);
        };
        let arguments = request.arguments.unwrap_or_default();
        match tool.call(self.attempt.as_ref(), arguments).await {
            Ok(answer) => CallToolResult::structured(answer),
            Err(problems) => refused(&problems),
        }
    }
}

/// A tool as clients are told of it.
fn describe(tool: Tool, has_children: bool) -> rmcp::model::Tool {
    let schema = Arc::new(tool.schema(has_children));
    let hints = ToolAnnotations::new()
        .read_only(tool.is_read_only())
        .destructive(false)
        .open_world(false);
    rmcp::model::Tool::new(tool.name(), tool.description(), schema).with_annotations(hints)
}

/// The answer to a call that did nothing: an error of the tool's, which the model reads.
fn refused(problems: &[FieldError]) -> CallToolResult {
    let lines: Vec<String> = problems.iter().map(FieldError::to_string).collect();
    CallToolResult::error(vec![ContentBlock::text(lines.join("\n"))])
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(NAME, env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    /// Not the newest revision: in that no answer begins before there is something to say, and clients
    /// that hear nothing for some minutes give up on what people take hours for.
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let newest = &ProtocolVersion::LATEST_WITH_INITIALIZE;
        Cow::Borrowed(ProtocolVersion::known_up_to(newest))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let mut listed = Tool::of(self.attempt.as_ref());
        let Some(tool) = listed.find(|tool| tool.name() == request.name) else {
            let names: Vec<&str> = Tool::of(self.attempt.as_ref()).map(Tool::name).collect();
            let message = format!("there is no such tool; there are {}", names.join(", "));
            return Err(ErrorData::invalid_params(message, None));
        };
        tokio::select! {
            result = self.call(tool, request) => Ok(result.into()),
            // Its caller has gone: nobody reads what would be said, and nothing of the attempt may be
            // held on to.
            () = context.ct.cancelled() => {
                Err(ErrorData::internal_error("the call was given up", None))
            }
        }
    }
}
