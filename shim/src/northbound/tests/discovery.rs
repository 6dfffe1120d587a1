use super::*;

#[tokio::test]
async fn versions_link_to_where_the_client_is() {
    let rest = Rest::new();
    let root = rest.get("/").await;
    let version = &root.body["versions"][0];
    assert_eq!(version["id"], "v2.0");
    assert_eq!(
        version["links"][0]["href"],
        "http://shim.example:9696/v2.0/"
    );
    for path in ["/v2.0", "/v2.0/"] {
        let answer = rest.get(path).await;
        assert_eq!(answer.body["version"], *version);
        assert_eq!(answer.body["resources"][2]["collection"], "ports");
    }
    let id = root.headers["x-openstack-request-id"].to_str().unwrap();
    assert!(id.starts_with("req-"));
}

#[tokio::test]
async fn a_host_header_that_is_none_is_not_repeated() {
    let rest = Rest::new();
    let request = Request::get("/").header(header::HOST, "\"><script>");
    let answer = rest.send(request.body(Body::empty()).unwrap()).await;
    let href = &answer.body["versions"][0]["links"][0]["href"];
    assert_eq!(href, "http://localhost/v2.0/");
}

#[tokio::test]
async fn extensions_are_listed_and_shown() {
    let rest = Rest::new();
    let all = rest.get("/v2.0/extensions").await.body;
    for extension in all["extensions"].as_array().unwrap() {
        let path = format!("/v2.0/extensions/{}", text(extension, "alias"));
        assert_eq!(rest.get(&path).await.body["extension"], *extension);
    }
    rest.get("/v2.0/extensions/quotas")
        .await
        .refused(404, "ExtensionNotFound", "quotas");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_each_interfaces_form() {
    let rest = Rest::new();
    rest.get("/v2.0/firewalls")
        .await
        .refused(404, "HTTPNotFound", "could not be found");
    rest.ask(Method::PATCH, "/v2.0/networks", None)
        .await
        .refused(405, "HTTPMethodNotAllowed", "not allowed");
    rest.get("/v1/nothing").await.failed(404, "not_found", None);
    rest.ask(Method::PATCH, "/v1/nves", None)
        .await
        .failed(405, "method_not_allowed", None);
}

/// Every route has a description because it cannot be added without one; here: that
/// the document is the one checked in, and that what it names is served.
#[tokio::test]
async fn the_openapi_document_is_the_one_checked_in_and_names_real_routes() {
    let rest = Rest::new();
    let served = rest.get("/v1/openapi.json").await.body;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        let text = serde_json::to_string_pretty(&served).unwrap() + "\n";
        std::fs::write(file, text).unwrap();
    }
    let text = std::fs::read_to_string(file).unwrap();
    let checked_in: Value = serde_json::from_str(&text).unwrap();
    assert!(
        served == checked_in,
        "shim/openapi.json is out of date; run this test with UPDATE_OPENAPI=1"
    );
    for (path, operations) in served["paths"].as_object().unwrap() {
        let path = path
            .replace("{id}", &Uuid::nil().to_string())
            .replace("{rule}", &Uuid::nil().to_string());
        for method in operations.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = rest.ask(method.clone(), &path, None).await;
            let message = answer.body["NeutronError"]["type"].as_str();
            assert_ne!(message, Some("HTTPNotFound"), "{method} {path}");
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
}

#[tokio::test]
async fn references_of_the_openapi_document_lead_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|v| references(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let document = Rest::new().get("/v1/openapi.json").await.body;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 30);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
