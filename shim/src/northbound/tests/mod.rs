mod discovery;
mod documents;
mod inspect;
mod leases;
mod lists;
mod operations;
mod qos;
mod resources;
mod routers;
mod security;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::intent::Settings;
use crate::store::{MemoryStore, Store};

/// The whole REST interface over a store in memory.
struct Rest {
    router: Router,
    ports: Arc<Active>,
    fabric: Fabric,
}

/// Which ports the test has declared in force.
#[derive(Default)]
struct Active(std::sync::Mutex<Vec<Uuid>>);

impl PortStatus for Active {
    fn is_active(&self, port: Uuid) -> bool {
        self.0.lock().unwrap().contains(&port)
    }
}

/// A response, with its body read.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Rest {
    fn new() -> Rest {
        Rest::over(Box::new(MemoryStore::default()))
    }

    fn over(store: Box<dyn Store>) -> Rest {
        let ports = Arc::new(Active::default());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let fabric = Fabric::new(controller, Arc::default());
        let mut api = Api::new(fabric.clone());
        api.ports = ports.clone();
        let router = router(api);
        Rest {
            router,
            ports,
            fabric,
        }
    }

    async fn metrics(&self) -> String {
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "shim.example:9696")
            .header(header::CONTENT_TYPE, "application/json");
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    /// Creates a Neutron resource and returns it as shown.
    async fn create(&self, member: &str, attributes: Value) -> Value {
        let path = match member {
            "policy" => "/v2.0/qos/policies".to_owned(),
            member => format!("/v2.0/{}s", member.replace('_', "-")),
        };
        let answer = self.post(&path, json!({member: attributes})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.body[member].clone()
    }
}

impl Answer {
    /// Expects Neutron's error of that status, type and text.
    #[track_caller]
    fn refused(&self, status: u16, kind: &str, words: &str) {
        let error = &self.body["NeutronError"];
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(error["type"], kind, "{error}");
        assert_eq!(error["detail"], "", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }

    /// Expects an error of the operators' API.
    #[track_caller]
    fn failed(&self, status: u16, code: &str, field: Option<&str>) {
        let error = &self.body["error"];
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["field"].as_str(), field, "{error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

/// A text of a shown resource, such as its id.
fn text<'a>(resource: &'a Value, attribute: &str) -> &'a str {
    resource[attribute].as_str().unwrap()
}
