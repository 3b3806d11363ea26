//! The one place where errors become HTTP answers: a status and `{"errors": ["…"]}`, nothing else.

use axum::{
    body::to_bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::reply;
use crate::{job::submit::SubmitError, modules::ModuleError, plan::PlanFailure};

/// An answer other than success.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The request cannot be understood or carried out as it is.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// A part of the path is not what it must be.
    pub(super) fn path_parameter(name: &str, value: &str) -> Self {
        let value: String = value.chars().take(64).collect();
        Self::bad_request(format!(
            "Bad request, could not parse parameters: Cannot resolve path parameter ({name}) from value \"{value}\"."
        ))
    }
}

/// The longest text of the web framework's own that is taken over.
const FRAMEWORK_TEXT_BYTES_MAX: usize = 4 << 10;

/// Puts the web framework's own refusals (a query that is no UTF-8, a body that is too long) into
/// the form of all others.
pub(super) async fn uniform(response: Response) -> Response {
    let status = response.status();
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !plain || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = to_bytes(response.into_body(), FRAMEWORK_TEXT_BYTES_MAX).await;
    let text = text.map_or_else(
        |_too_long| String::new(),
        |text| String::from_utf8_lossy(&text).into_owned(),
    );
    ApiError::new(status, text).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(
                status = self.status.as_u16(),
                error = self.message,
                "request failed"
            );
        }
        let mut response = reply::with_status(self.status, &json!({ "errors": [self.message] }));
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body is not read: the connection cannot serve another request.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }
}

impl From<ModuleError> for ApiError {
    fn from(error: ModuleError) -> Self {
        let status = match &error {
            ModuleError::NotFound(_) => StatusCode::NOT_FOUND,
            ModuleError::Refused(_) => StatusCode::BAD_REQUEST,
            ModuleError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ModuleError::Compile(failure) => plan_status(failure),
            ModuleError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let status = match error {
            SubmitError::Module(error) => return error.into(),
            SubmitError::Exists(_) => StatusCode::CONFLICT,
            SubmitError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            SubmitError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
            SubmitError::Plan(ref failure) => plan_status(failure),
            SubmitError::Invalid(_) | SubmitError::Config(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

const fn plan_status(failure: &PlanFailure) -> StatusCode {
    if failure.callers_fault {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}
