//! Keeps web pages from talking to the API through a user's browser.
//!
//! The API listens on loopback only, but a page from anywhere can send requests there, and a name
//! server can give such a page's own name a loopback address. So the `Host` of every request must
//! be a loopback name, and an `Origin`, which browsers send with what pages ask for, must be this
//! very server.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::error::ApiError;

/// Lets a request pass or refuses it.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("\u{fffd}"))
    };
    match verdict(text(header::HOST), text(header::ORIGIN)) {
        Ok(()) => next.run(request).await,
        Err(reason) => ApiError::new(StatusCode::FORBIDDEN, reason).into_response(),
    }
}

fn verdict(host: Option<&str>, origin: Option<&str>) -> Result<(), &'static str> {
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let Some(host) = host.filter(|host| is_loopback(host.host())) else {
        return Err("the Host of the request is not a loopback name; use localhost or 127.0.0.1");
    };
    let Some(origin) = origin else { return Ok(()) };
    let same = origin
        .strip_prefix("http://")
        .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str()));
    if same {
        Ok(())
    } else {
        Err("requests from pages of another origin are refused")
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_pass() {
        for host in ["localhost:8081", "127.0.0.1", "[::1]:8081", "LOCALHOST:1"] {
            assert!(verdict(Some(host), None).is_ok(), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            None,
            Some("example.com"),
            Some("10.0.0.1:8081"),
            Some("localhost.evil.com"),
            Some(""),
        ] {
            assert!(verdict(host, None).is_err(), "{host:?}");
        }
    }

    #[test]
    fn only_pages_of_this_server_pass() {
        assert!(verdict(Some("localhost:8081"), Some("http://localhost:8081")).is_ok());
        for origin in [
            "http://localhost:8082",
            "https://evil.com",
            "null",
            "http://127.0.0.1:8081",
        ] {
            assert!(
                verdict(Some("localhost:8081"), Some(origin)).is_err(),
                "{origin}"
            );
        }
    }
}
