//! Determines the API of a request by its path and its headers. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::config::ProviderKind;
use crate::http::message::Headers;

/// The paths that only Anthropic's API has. Header fields decide about those that `OpenAI` has too.
const ANTHROPIC_PATHS: [&str; 1] = ["/v1/messages"];
/// The header fields that only clients of Anthropic's API send.
const ANTHROPIC_FIELDS: [&str; 2] = ["anthropic-version", "anthropic-beta"];
/// The paths of `OpenAI`'s API.
const OPENAI_PATHS: [&str; 16] = [
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/files",
    "/v1/uploads", "/v1/batches", "/v1/audio", "/v1/images", "/v1/moderations", "/v1/fine_tuning",
    "/v1/vector_stores", "/v1/realtime", "/v1/assistants", "/v1/threads", MODELS_PATH,
];
/// The list of models, of either API.
const MODELS_PATH: &str = "/v1/models";
/// The paths of Gemini's API; the second is for uploads.
const GENERIC_PATHS: [&str; 2] = ["/v1beta", "/upload/v1beta"];
/// The methods of Gemini's and Vertex AI's API, after a colon at the end of a path.
const GENERIC_METHODS: [&str; 14] = [
    "generateContent", "streamGenerateContent", "batchGenerateContent", "bidiGenerateContent",
    "countTokens", "computeTokens", "embedContent", "batchEmbedContents", "asyncBatchEmbedContent",
    "generateAnswer", "predict", "predictLongRunning", "rawPredict", "streamRawPredict",
];

/// The API of a request for `path` with `headers`; None if it belongs to none.
pub(crate) fn api_of(path: &str, headers: &Headers) -> Option<ProviderKind> {
    let path = normal(path);
    if is_within(&path, &ANTHROPIC_PATHS) {
        return Some(ProviderKind::Anthropic);
    }
    if ANTHROPIC_FIELDS.iter().any(|field| headers.contains(field)) {
        return Some(ProviderKind::Anthropic);
    }
    // Before OpenAI's, because `/v1/models/gemini-pro:generateContent` begins like one of those.
    if has_generic_method(&path) || is_within(&path, &GENERIC_PATHS) {
        return Some(ProviderKind::Generic);
    }
    is_within(&path, &OPENAI_PATHS).then_some(ProviderKind::OpenAi)
}

/// True if a request for `path` names its model there, and not in its body: Gemini's and Vertex AI's APIs.
pub(crate) fn has_model_in_path(path: &str) -> bool {
    has_generic_method(&normal(path))
}

fn has_generic_method(path: &str) -> bool {
    let method = path.rsplit_once(':').map(|(_, method)| method);
    method.is_some_and(|method| GENERIC_METHODS.contains(&method))
}

/// True if `path` is the list of models, and not one model.
pub(crate) fn is_models_list(path: &str) -> bool {
    normal(path).trim_end_matches('/') == MODELS_PATH
}

/// The model that a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PathModel {
    /// Its name.
    pub name: String,
    /// True if the path alone decides about the model, whatever the body says.
    pub decides: bool,
}

/// The operations of Bedrock's API on a model.
const BEDROCK_OPERATIONS: [&str; 5] =
    ["invoke", "invoke-with-response-stream", "converse", "converse-stream", "count-tokens"];

/// The model that `path` names: `…/models/NAME`, `…/models/NAME:generateContent` (Gemini, Vertex AI),
/// `/openai/deployments/NAME/…` (Azure) or `/model/NAME/invoke` (Bedrock).
pub(crate) fn model_in(path: &str) -> Option<PathModel> {
    let path = normal(path);
    let path = path.trim_end_matches('/');
    if let Some(rest) = path.strip_prefix("/model/")
        && let Some((name, operation)) = rest.rsplit_once('/')
        && BEDROCK_OPERATIONS.contains(&operation)
    {
        return Some(PathModel { name: name.to_owned(), decides: true });
    }
    let deployments = path.strip_prefix("/openai").unwrap_or(path);
    if let Some(rest) = deployments.strip_prefix("/deployments/") {
        let (name, operation) = rest.split_once('/').unwrap_or((rest, ""));
        return Some(PathModel { name: name.to_owned(), decides: !operation.is_empty() });
    }
    let folders = ["/models/", "/tunedModels/"];
    let (_, rest) = folders.iter().find_map(|folder| path.rsplit_once(folder))?;
    let method = rest.rsplit_once(':').filter(|(_, method)| GENERIC_METHODS.contains(method));
    Some(match method {
        Some((name, _)) => PathModel { name: name.to_owned(), decides: true },
        None => PathModel { name: rest.to_owned(), decides: false },
    })
}

/// What a request does that names no model in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A file is sent, or something is cancelled: no model works for that.
    NoModel,
    /// Its models are deep in the body, or in a file.
    HidesModels,
    /// A list of models that is not a list of `OpenAI`'s or Anthropic's API.
    ListsModels,
    /// Anything else.
    Other,
}

/// Paths below which files are sent.
const FILE_PATHS: [&str; 6] =
    ["/v1/files", "/v1/uploads", "/v1beta/files", "/upload/v1beta/files", "/files", "/uploads"];
/// Paths below which a body names its models at another place than its top level.
const HIDING_PATHS: [&str; 8] = [
    "/v1/batches", "/v1/messages/batches", "/v1/realtime", "/v1/evals", "/batches",
    "/messages/batches", "/realtime", "/evals",
];

/// What a request for `path` does.
pub(crate) fn work_of(path: &str) -> Work {
    let path = normal(path);
    let path = path.trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    if matches!(last, "models" | "tunedModels" | "deployments") {
        Work::ListsModels
    } else if last == "cancel" || is_within(path, &FILE_PATHS) {
        Work::NoModel
    } else if is_within(path, &HIDING_PATHS) {
        Work::HidesModels
    } else {
        Work::Other
    }
}

/// True if some servers read another path in `path` than [`normal`] does: they take `\\` for `/`, cut the text after `;` off
/// a segment, or decode twice. No API has such a path.
pub(crate) fn is_ambiguous(path: &str) -> bool {
    percent_decode_str(path).any(|byte| b"\\;?#%".contains(&byte) || byte.is_ascii_control())
}

/// True if `path` is one of `roots` or lies below one.
fn is_within(path: &str, roots: &[&str]) -> bool {
    roots.iter().any(|root| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// `path` as most servers read it: percent-encoding decoded, doubled slashes and dot segments removed (RFC 3986
/// §5.2.4, §6.2.2). It decides about the provider as that provider will read the path; the path that is sent on stays
/// as it came.
fn normal(path: &str) -> Cow<'_, str> {
    let mut last = 0;
    let mut is_odd = false;
    for byte in path.bytes() {
        is_odd |= byte == b'%' || (last == b'/' && (byte == b'/' || byte == b'.'));
        last = byte;
    }
    if !is_odd {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[&str]) -> Headers {
        let mut headers = Headers::new();
        for name in fields {
            headers.push(name, "x");
        }
        headers
    }

    #[test]
    fn paths_and_their_api() {
        use ProviderKind::{Anthropic, Generic, OpenAi};
        let cases = [
            ("/v1/messages", Some(Anthropic)),
            ("/v1/messages/", Some(Anthropic)),
            ("/v1/messages/count_tokens", Some(Anthropic)),
            ("/v1/messages/batches/b/results", Some(Anthropic)),
            ("/v1/%6dessages", Some(Anthropic)),
            ("/v1%2fmessages", Some(Anthropic)),
            ("//v1///messages", Some(Anthropic)),
            ("/x/../v1/./messages", Some(Anthropic)),
            ("/v1/messagesx", None),
            ("/v1/message", None),
            ("/V1/messages", None),
            ("/v1/chat/completions", Some(OpenAi)),
            ("/v1/chat/completions/c/messages", Some(OpenAi)),
            ("/v1/chat", None),
            ("/v1/completions", Some(OpenAi)),
            ("/v1/complete", None),
            ("/v1/responses/r/input_items", Some(OpenAi)),
            ("/v1/embeddings", Some(OpenAi)),
            ("/v1/files/f/content", Some(OpenAi)),
            ("/v1/uploads", Some(OpenAi)),
            ("/v1/batches/b/cancel", Some(OpenAi)),
            ("/v1/audio/transcriptions", Some(OpenAi)),
            ("/v1/images/generations", Some(OpenAi)),
            ("/v1/moderations", Some(OpenAi)),
            ("/v1/fine_tuning/jobs", Some(OpenAi)),
            ("/v1/vector_stores/v/files", Some(OpenAi)),
            ("/v1/realtime/client_secrets", Some(OpenAi)),
            ("/v1/assistants", Some(OpenAi)),
            ("/v1/threads/t/runs", Some(OpenAi)),
            ("/v1/models", Some(OpenAi)),
            ("/v1/models/ft:gpt-5:acme::id", Some(OpenAi)),
            ("/v1/modelsx", None),
            ("/v1/models/../messages", Some(Anthropic)),
            ("/v1/models/gemini-pro:generateContent", Some(Generic)),
            ("/v1beta/models/gemini-pro:streamGenerateContent", Some(Generic)),
            ("/v1/projects/p/locations/l/publishers/google/models/m:predict", Some(Generic)),
            ("/v1beta", Some(Generic)),
            ("/v1beta/cachedContents", Some(Generic)),
            ("/v1beta1/x", None),
            ("/upload/v1beta/files", Some(Generic)),
            ("/x:generateContents", None),
            ("/", None),
            ("/v1", None),
            ("/.well-known/oauth-protected-resource", None),
            ("/register", None),
            ("/favicon.ico", None),
            ("/%", None),
            ("/%ff/v1/messages", None),
        ];
        for (path, expected) in cases {
            assert_eq!(api_of(path, &Headers::new()), expected, "{path}");
        }
    }

    #[test]
    fn no_way_of_writing_a_path_makes_it_one_of_another_api() {
        let paths = ANTHROPIC_PATHS.iter().chain(&OPENAI_PATHS).chain(&GENERIC_PATHS);
        for path in paths {
            let expected = api_of(path, &Headers::new());
            assert!(expected.is_some(), "{path}");
            for (at, byte) in path.bytes().enumerate() {
                let (start, rest) = path.split_at(at);
                let mut ways = vec![
                    format!("{start}%{byte:02x}{}", &rest[1..]),
                    format!("{start}%{byte:02X}{}/x", &rest[1..]),
                ];
                if byte == b'/' {
                    ways.extend(
                        ["/", "/.", "/%2e", "/x/..", "/x/%2E%2e"]
                            .map(|way| format!("{start}{way}{rest}")),
                    );
                }
                for way in ways {
                    assert_eq!(api_of(&way, &Headers::new()), expected, "{way}");
                }
            }
        }
    }

    #[test]
    fn header_fields_tell_where_both_have_the_path() {
        use ProviderKind::{Anthropic, OpenAi};
        let cases: [(&str, &[&str], Option<ProviderKind>); 7] = [
            ("/v1/models", &["Anthropic-Version"], Some(Anthropic)),
            ("/v1/files", &["accept", "ANTHROPIC-BETA"], Some(Anthropic)),
            ("/v1/complete", &["anthropic-version"], Some(Anthropic)),
            ("/v1/models", &["anthropic"], Some(OpenAi)),
            ("/v1/models", &["x-anthropic-version"], Some(OpenAi)),
            ("/v1/messages", &["openai-organization"], Some(Anthropic)),
            ("/register", &["authorization"], None),
        ];
        for (path, fields, expected) in cases {
            assert_eq!(api_of(path, &of(fields)), expected, "{path} {fields:?}");
        }
    }

    #[test]
    fn models_in_paths() {
        for (path, expected) in [
            ("/v1/models/gpt-5", Some(("gpt-5", false))),
            ("/v1/models/ft:gpt-5:acme::id", Some(("ft:gpt-5:acme::id", false))),
            ("/v1/models/org/name", Some(("org/name", false))),
            ("/v1/%6dodels/gpt%2D5", Some(("gpt-5", false))),
            ("/v1beta/models/gemini-pro:generateContent", Some(("gemini-pro", true))),
            ("/v1beta/models/gemini-pro:streamGenerateContent/", Some(("gemini-pro", true))),
            ("/v1beta/models/x/../gemini-pro:countTokens", Some(("gemini-pro", true))),
            ("/v1beta/tunedModels/mine:generateContent", Some(("mine", true))),
            ("/v1/projects/p/locations/l/publishers/google/models/m:predict", Some(("m", true))),
            ("/v1beta/models/gemini-pro:unknown", Some(("gemini-pro:unknown", false))),
            ("/openai/deployments/mine/chat/completions", Some(("mine", true))),
            ("/deployments/mine/chat/completions", Some(("mine", true))),
            ("/openai/deployments/mine", Some(("mine", false))),
            ("/openai/deployments/mine/../other/x", Some(("other", true))),
            ("/model/anthropic.claude-v1%3A0/invoke", Some(("anthropic.claude-v1:0", true))),
            ("/model/arn%3Aaws%3Ax%2Fy/converse-stream", Some(("arn:aws:x/y", true))),
            ("/model/x/other", None),
            ("/v1/models", None),
            ("/v1/models/", None),
            ("/v1/chat/completions", None),
            ("/v1/messages", None),
        ] {
            let found = model_in(path);
            let found = found.as_ref().map(|one| (one.name.as_str(), one.decides));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn paths_that_servers_read_in_different_ways() {
        for path in [
            "/v1/files/..;/x", "/a\\b", "/a%5cb", "/a%3fb", "/a%23b", "/a%252e", "/a%00", "/a%0a",
            "/%",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in
            ["/", "/v1/models/ft:gpt-5:a@b~c_d.e", "/model/a%3A0/invoke", "/a%2Fb/../c", "/%c3%a9"]
        {
            assert!(!is_ambiguous(path), "{path}");
        }
    }

    #[test]
    fn what_a_request_does_by_its_path() {
        for (path, expected) in [
            ("/v1/files", Work::NoModel),
            ("/files", Work::NoModel),
            ("/v1/uploads/u/parts", Work::NoModel),
            ("/upload/v1beta/files", Work::NoModel),
            ("/v1/responses/r/cancel", Work::NoModel),
            ("/v1/batches/b/cancel", Work::NoModel),
            ("/v1/batches", Work::HidesModels),
            ("/v1/messages/batches", Work::HidesModels),
            ("/messages/batches/", Work::HidesModels),
            ("/v1/realtime/client_secrets", Work::HidesModels),
            ("/v1/files/../batches", Work::HidesModels),
            ("/v1beta/models", Work::ListsModels),
            ("/openai/models/", Work::ListsModels),
            ("/v1/chat/completions", Work::Other),
            ("/v1/filesx", Work::Other),
            ("/", Work::Other),
        ] {
            assert_eq!(work_of(path), expected, "{path}");
        }
    }

    #[test]
    fn the_list_of_models_is_told_from_one_of_them() {
        for path in ["/v1/models", "/v1/models/", "//v1/models", "/v1/%6dodels/"] {
            assert!(is_models_list(path), "{path}");
        }
        for path in ["/v1/models/m", "/v1/modelsx", "/models", "/v1/models:x"] {
            assert!(!is_models_list(path), "{path}");
        }
    }
}
