//! Who is asked.

use serde_json::json;

/// A model service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Provider {
    /// Anthropic: the Messages API.
    Anthropic,
    /// OpenAI, and what speaks as it does: Responses and Chat Completions.
    OpenAi,
}

impl Provider {
    /// Its name, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "Anthropic",
            Self::OpenAi => "OpenAI",
        }
    }

    /// Where it is, when nothing else is said.
    pub fn default_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com/v1",
        }
    }

    /// An error of ours in the words of the provider, so that its clients show the message.
    pub fn error(self, status: u16, message: &str) -> String {
        let kind = match status {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            413 => "request_too_large",
            _ => "api_error",
        };
        let error = json!({"type": kind, "message": message});
        match self {
            Self::Anthropic => json!({"type": "error", "error": error}),
            Self::OpenAi => {
                json!({"error": {"type": kind, "message": message, "code": null, "param": null}})
            }
        }
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_the_providers_shape() {
        let anthropic = Provider::Anthropic.error(403, "no \"more\"");
        assert_eq!(
            anthropic,
            r#"{"error":{"message":"no \"more\"","type":"permission_error"},"type":"error"}"#
        );
        let open_ai = Provider::OpenAi.error(400, "x");
        assert_eq!(
            open_ai,
            r#"{"error":{"code":null,"message":"x","param":null,"type":"invalid_request_error"}}"#
        );
    }
}
