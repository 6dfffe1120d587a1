//! Routes together with their descriptions.

use std::collections::BTreeMap;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use serde_json::{Map, Value, json};

use super::Api;

/// Described operations by path, then by method in lower case.
pub type Paths = BTreeMap<String, Map<String, Value>>;

/// Collects routes and what the OpenAPI document says about them.
#[derive(Default)]
pub struct Routes {
    router: Router<Api>,
    paths: Paths,
}

/// HTTP methods that routes have.
#[derive(Debug, Clone, Copy)]
pub enum Verb {
    /// GET, and HEAD.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

impl Verb {
    const fn filter(self) -> MethodFilter {
        match self {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Delete => MethodFilter::DELETE,
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Delete => "delete",
        }
    }
}

impl Routes {
    /// Adds a route; `{name}` in its path is a parameter.
    pub fn add<H, T>(mut self, verb: Verb, path: &str, about: Operation, handler: H) -> Routes
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        self.router = self.router.route(path, on(verb.filter(), handler));
        self.paths
            .entry(path.to_owned())
            .or_default()
            .insert(verb.key().to_owned(), about.into_json(path));
        self
    }

    /// The router and the descriptions of its routes.
    pub fn into_parts(self) -> (Router<Api>, Paths) {
        (self.router, self.paths)
    }
}

/// A body's media type and schema.
type Content = (&'static str, Value);

const JSON: &str = "application/json";

/// Description of one route.
pub struct Operation {
    tag: &'static str,
    summary: String,
    query: Vec<(&'static str, &'static str)>,
    body: Option<Value>,
    answer: (u16, Option<Content>),
    errors: &'static [u16],
    /// Whether errors are problem details (RFC 9457).
    as_problems: bool,
}

impl Operation {
    /// An operation of the group `tag` that answers 204 and nothing.
    pub fn new(tag: &'static str, summary: impl Into<String>) -> Operation {
        Operation {
            tag,
            summary: summary.into(),
            query: Vec::new(),
            body: None,
            answer: (204, None),
            errors: &[],
            as_problems: false,
        }
    }

    /// Takes that query parameter.
    pub fn query(mut self, name: &'static str, doc: &'static str) -> Operation {
        self.query.push((name, doc));
        self
    }

    /// Takes a JSON body of that schema.
    pub fn body(mut self, schema: Value) -> Operation {
        self.body = Some(schema);
        self
    }

    /// Answers with JSON of that schema.
    pub fn answer(self, status: u16, schema: Value) -> Operation {
        self.answer_as(status, JSON, schema)
    }

    /// Answers with that media type and schema.
    pub fn answer_as(mut self, status: u16, media: &'static str, schema: Value) -> Operation {
        self.answer = (status, Some((media, schema)));
        self
    }

    /// Answers with that status and nothing.
    pub fn empty(mut self, status: u16) -> Operation {
        self.answer = (status, None);
        self
    }

    /// May fail with these.
    pub fn errors(mut self, statuses: &'static [u16]) -> Operation {
        self.errors = statuses;
        self
    }

    /// May fail with these, told as problem details.
    pub fn problems(mut self, statuses: &'static [u16]) -> Operation {
        self.as_problems = true;
        self.errors(statuses)
    }

    fn into_json(self, path: &str) -> Value {
        let in_path = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                let text = json!({"type": "string"});
                json!({"name": name, "in": "path", "required": true, "schema": text})
            });
        let in_query = self.query.iter().map(|(name, doc)| {
            let text = json!({"type": "string"});
            json!({"name": name, "in": "query", "description": doc, "schema": text})
        });
        let parameters: Vec<Value> = in_path.chain(in_query).collect();
        let mut responses = Map::new();
        let (status, body) = self.answer;
        responses.insert(status.to_string(), response("Done.", body));
        let (media, error) = match path.starts_with("/v1") {
            true if self.as_problems => ("application/problem+json", "Problem"),
            true => (JSON, "Error"),
            false => (JSON, "NeutronError"),
        };
        for status in self.errors {
            let schema = json!({"$ref": format!("#/components/schemas/{error}")});
            responses.insert(
                status.to_string(),
                response(reason(*status), Some((media, schema))),
            );
        }
        let mut about = json!({
            "tags": [self.tag], "summary": self.summary,
            "parameters": parameters, "responses": responses,
        });
        if let Some(schema) = self.body {
            about["requestBody"] = json!({"required": true, "content": content(JSON, schema)});
        }
        about
    }
}

fn response(description: &str, body: Option<Content>) -> Value {
    match body {
        Some((media, schema)) => {
            json!({"description": description, "content": content(media, schema)})
        }
        None => json!({"description": description}),
    }
}

fn content(media: &str, schema: Value) -> Value {
    json!({media: {"schema": schema}})
}

const fn reason(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed or asks for what cannot be.",
        401 => "It has no valid HTTP digest credentials.",
        404 => "There is no such object.",
        409 => "It conflicts with what exists.",
        503 => "The NVE is not connected, or does not answer; or the store does not.",
        412 => "The resource is not at the revision that If-Match names.",
        _ => "It failed.",
    }
}
