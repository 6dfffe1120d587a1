//! Both ends against the RFC's example, and against each other on the loopback.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::routing::get;
use axum::{Extension, Json, Router, middleware};
use hyper_util::client::legacy::Client as Plain;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

use super::{Authenticator, Signer, User, require};
use crate::auth::{Credentials, Secret};
use crate::http::{Client, ClientError, server};

/// RFC 7616, section 3.9.1.
const CHALLENGES: [&str; 2] = [
    r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#,
    r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#,
];
const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

fn credentials(username: &str, password: &str) -> Credentials {
    Credentials::new(username, Secret::new(password)).unwrap()
}

#[test]
fn both_ends_compute_the_responses_of_the_rfc() {
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        (
            "SHA-256",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
    ] {
        let header = format!(
            r#"username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="{CNONCE}", qop=auth, response="{response}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
        );
        let given = digest_auth::AuthorizationHeader::parse(&header).unwrap();
        let right = Secret::new("Circle of Life");
        assert!(super::server::responds_to(&given, &right, &Method::GET));
        assert!(!super::server::responds_to(&given, &right, &Method::POST));
        let wrong = Secret::new("circle of life");
        assert!(!super::server::responds_to(&given, &wrong, &Method::GET));
    }
}

#[test]
fn the_client_takes_the_strongest_challenge_in_any_arrangement() {
    let [sha, md5] = CHALLENGES;
    let basic = r#"Basic realm="a, Digest b""#;
    for values in [
        vec![sha.to_owned(), md5.to_owned()],
        vec![md5.to_owned(), basic.to_owned(), sha.to_owned()],
        vec![format!("{basic}, {md5}, {sha}")],
        vec![sha.replacen("Digest", "digest", 1)],
    ] {
        let signer = Signer::new(credentials("Mufasa", "Circle of Life"));
        assert_eq!(signer.sign(&Method::GET, "/"), None);
        let mut headers = HeaderMap::new();
        for value in &values {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(header::WWW_AUTHENTICATE, value);
        }
        assert_eq!(signer.challenged(&headers), Ok(false), "{values:?}");
        for count in 1..3 {
            let signed = signer.sign(&Method::GET, "/dir/index.html").unwrap();
            let text = signed.to_str().unwrap();
            assert!(text.contains("algorithm=SHA-256"), "{text}");
            assert!(text.contains("qop=auth, "), "{text}");
            assert!(text.contains(&format!("nc=0000000{count}")), "{text}");
            assert!(signed.is_sensitive());
        }
    }
}

#[test]
fn a_challenge_that_cannot_be_met_is_an_error() {
    for value in [
        "Basic realm=x",
        "Digest realm=x",
        r#"Digest realm="x", nonce="y""#,
        r#"Digest realm="x", nonce="y", qop="auth-int""#,
        r#"Digest realm="x", nonce="y", qop="auth", algorithm=ROT13"#,
        "Digest =====\"\"\\",
        "Digest",
        "",
    ] {
        let signer = Signer::new(credentials("u", "p"));
        let headers = HeaderMap::from_iter([(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_str(value).unwrap(),
        )]);
        assert!(signer.challenged(&headers).is_err(), "{value}");
    }
}

async fn whoami(Extension(user): Extension<User>) -> Json<String> {
    Json(user.0)
}

/// A server that lets `shim` with password `swordfish` in; its address.
async fn guarded() -> String {
    let users = [credentials("shim", "swordfish")];
    let authenticator = Arc::new(Authenticator::new("test", users));
    let app = Router::new()
        .nest(
            "/v1",
            Router::new().route("/whoami", get(whoami).post(whoami)),
        )
        .layer(middleware::from_fn_with_state(authenticator, require));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, app, std::future::pending()));
    format!("http://{address}")
}

#[tokio::test]
async fn the_right_password_is_let_in_and_the_wrong_one_is_not() {
    let url = guarded().await;
    let client = Client::new(&url, Some(credentials("shim", "swordfish"))).unwrap();
    for _ in 0..3 {
        let user: String = client.get("/v1/whoami?x=1").await.unwrap();
        assert_eq!(user, "shim");
    }
    for (username, password) in [("shim", "wrong"), ("nobody", "swordfish")] {
        let client = Client::new(&url, Some(credentials(username, password))).unwrap();
        let answer = client.get::<String>("/v1/whoami").await;
        assert!(
            matches!(answer, Err(ClientError::Unauthorized(_))),
            "{answer:?}"
        );
    }
    let nobody = Client::new(&url, None).unwrap();
    let answer = nobody.get::<String>("/v1/whoami").await;
    assert!(matches!(answer, Err(ClientError::Unauthorized(_))));
}

/// Sends one request with `authorization` as it is; status and headers.
async fn raw(url: &str, authorization: Option<&HeaderValue>) -> (StatusCode, HeaderMap) {
    let client: Plain<HttpConnector, Body> =
        Plain::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut request = Request::get(format!("{url}/v1/whoami"))
        .body(Body::empty())
        .unwrap();
    if let Some(value) = authorization {
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, value.clone());
    }
    let response = client.request(request).await.unwrap();
    (response.status(), response.headers().clone())
}

#[tokio::test]
async fn a_replayed_request_is_refused_as_stale() {
    let url = guarded().await;
    let (status, headers) = raw(&url, None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let offers: Vec<&str> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(offers.len(), 2);
    assert!(offers[0].contains("algorithm=SHA-256"));
    assert!(offers[1].contains("algorithm=MD5"));
    assert!(!offers[0].contains("stale"));

    let signer = Signer::new(credentials("shim", "swordfish"));
    signer.challenged(&headers).unwrap();
    let first = signer.sign(&Method::GET, "/v1/whoami").unwrap();
    let second = signer.sign(&Method::GET, "/v1/whoami").unwrap();
    assert_eq!(raw(&url, Some(&second)).await.0, StatusCode::OK);
    assert_eq!(
        raw(&url, Some(&first)).await.0,
        StatusCode::OK,
        "out of order"
    );
    for used in [&first, &second] {
        let (status, headers) = raw(&url, Some(used)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(signer.challenged(&headers), Ok(true), "a new nonce helps");
    }
}

#[tokio::test]
async fn what_is_malformed_or_for_another_request_is_refused() {
    let url = guarded().await;
    let (_, headers) = raw(&url, None).await;
    let signer = Signer::new(credentials("shim", "swordfish"));
    signer.challenged(&headers).unwrap();
    let other_target = signer.sign(&Method::GET, "/v1/other").unwrap();
    let other_method = signer.sign(&Method::POST, "/v1/whoami").unwrap();
    let good = signer.sign(&Method::GET, "/v1/whoami").unwrap();
    let good = good.to_str().unwrap();
    let edited = |from: &str, to: &str| HeaderValue::from_str(&good.replace(from, to)).unwrap();

    let bad = StatusCode::BAD_REQUEST;
    let wrong = StatusCode::UNAUTHORIZED;
    for (value, expected) in [
        (other_target, bad),
        (other_method, wrong),
        (edited("nc=00000003", "nc=00000004"), wrong),
        (edited("realm=\"test\"", "realm=\"best\""), wrong),
        (edited("algorithm=SHA-256", "algorithm=SHA-256-sess"), bad),
        (edited("qop=auth", "qop=auth-int"), bad),
        (edited("qop=auth, ", ""), bad),
        (edited("nc=00000003", "nc=zzz"), bad),
        (
            HeaderValue::from_static("Basic c2hpbTpzd29yZGZpc2g="),
            wrong,
        ),
        (HeaderValue::from_static("Digest"), wrong),
        (HeaderValue::from_static("Digest \"\\"), bad),
        (
            HeaderValue::from_bytes("Digest ünï=\"x\"".as_bytes()).unwrap(),
            bad,
        ),
        (
            HeaderValue::from_str(&format!("Digest a={}", "x".repeat(9000))).unwrap(),
            bad,
        ),
    ] {
        assert_eq!(raw(&url, Some(&value)).await.0, expected, "{value:?}");
    }
    let good = HeaderValue::from_str(good).unwrap();
    assert_eq!(raw(&url, Some(&good)).await.0, StatusCode::OK, "unspent");
}

/// RFC 7616, section 3.9.2: SHA-512/256, a hashed user name and an internationalized
/// one. None of these is offered.
#[tokio::test]
async fn algorithms_that_are_not_offered_are_refused() {
    let url = guarded().await;
    let example = r#"Digest username="488869477bf257147b804c45308cd62ac4e25eb717b12b298c79e62dcea254ec", realm="api@example.org", uri="/v1/whoami", algorithm=SHA-512-256, nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", nc=00000001, cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm", qop=auth, response="ae66e67d6b427bd3f120414a82e4acff38e8ecd9101d6c861229025f607a79dd", opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", userhash=true"#;
    let with_userhash = example.replace("SHA-512-256", "SHA-256");
    let named = r#"Digest username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, realm="test", uri="/v1/whoami", algorithm=SHA-256, nonce="x", nc=00000001, cnonce="y", qop=auth, response="00""#;
    for header in [example, &with_userhash, named] {
        let value = HeaderValue::from_str(header).unwrap();
        assert_eq!(
            raw(&url, Some(&value)).await.0,
            StatusCode::BAD_REQUEST,
            "{header}"
        );
    }
}

#[test]
fn the_client_meets_a_challenge_for_sha_512_256() {
    let challenge = CHALLENGES[0].replace("SHA-256", "SHA-512-256");
    let signer = Signer::new(credentials("Mufasa", "Circle of Life"));
    let values = [&challenge, CHALLENGES[0]].map(|value| HeaderValue::from_str(value).unwrap());
    let headers = values.map(|value| (header::WWW_AUTHENTICATE, value));
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(name, value);
    }
    assert_eq!(signer.challenged(&all), Ok(false));
    let signed = signer.sign(&Method::GET, "/").unwrap();
    assert!(signed.to_str().unwrap().contains("algorithm=SHA-512-256"));
}

#[tokio::test]
async fn a_nonce_of_another_run_is_stale_and_a_new_one_helps() {
    let (before, after) = (guarded().await, guarded().await);
    let (_, headers) = raw(&before, None).await;
    let signer = Signer::new(credentials("shim", "swordfish"));
    signer.challenged(&headers).unwrap();
    let signed = signer.sign(&Method::GET, "/v1/whoami").unwrap();
    let (status, headers) = raw(&after, Some(&signed)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(signer.challenged(&headers), Ok(true), "stale");
    let signed = signer.sign(&Method::GET, "/v1/whoami").unwrap();
    assert_eq!(raw(&after, Some(&signed)).await.0, StatusCode::OK);
    // A wrong password is not told to be stale.
    let wrong = Signer::new(credentials("shim", "sword"));
    wrong.challenged(&headers).unwrap();
    let signed = wrong.sign(&Method::GET, "/v1/whoami").unwrap();
    let (status, headers) = raw(&after, Some(&signed)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.challenged(&headers), Ok(false));
}
