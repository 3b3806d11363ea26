//! Answers as JSON, with the headers that clients expect.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// What a handler returns.
pub(super) type Reply = Result<Response, super::error::ApiError>;

/// 200 with a body.
#[expect(clippy::unnecessary_wraps, reason = "handlers end with it")]
pub(super) fn ok(body: &Value) -> Reply {
    Ok(with_status(StatusCode::OK, body))
}

/// 202 with an empty object: clients fail on a body of no bytes.
#[expect(clippy::unnecessary_wraps, reason = "handlers end with it")]
pub(super) fn accepted() -> Reply {
    Ok(with_status(StatusCode::ACCEPTED, &json!({})))
}

/// A status and a body.
pub(super) fn with_status(status: StatusCode, body: &Value) -> Response {
    let json = HeaderValue::from_static("application/json; charset=UTF-8");
    (status, [(header::CONTENT_TYPE, json)], body.to_string()).into_response()
}
