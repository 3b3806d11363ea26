//! Reading what clients send: path parameters, query strings, lenient JSON bodies.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::Deserialize;
use tidemill_types::{JobId, TenantId, VertexId};

use super::error::ApiError;
use crate::{
    cluster::Cluster,
    job::{JobHandle, submit::Submission},
};

/// Who asks. Without configured tenants there is one.
#[derive(Debug)]
pub(super) struct Tenant(pub(super) TenantId);

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(TenantId::default_tenant()))
    }
}

/// The pairs of a query string; a name may occur several times.
pub(super) type Pairs = Query<Vec<(String, String)>>;

/// The last value of a query parameter.
pub(super) fn param<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs
        .0
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// All values of a query parameter; each may be a list with commas. None if it does not occur.
pub(super) fn list(pairs: &Pairs, name: &str) -> Option<Vec<String>> {
    let mut found = pairs.0.iter().filter(|(key, _)| key == name).peekable();
    found.peek()?;
    let split = |value: &str| value.split(',').map(str::to_owned).collect::<Vec<_>>();
    Some(
        found
            .flat_map(|(_, value)| split(value))
            .filter(|part| !part.is_empty())
            .collect(),
    )
}

/// A tenant's job, by the text in the path.
pub(super) fn job(cluster: &Cluster, tenant: &Tenant, id: &str) -> Result<JobHandle, ApiError> {
    let parsed: JobId = id
        .parse()
        .map_err(|_invalid| ApiError::path_parameter("jobid", id))?;
    cluster
        .job(&tenant.0, parsed)
        .ok_or_else(|| ApiError::not_found(format!("Job {parsed} not found")))
}

/// The position of a vertex of a job, by the text in the path.
pub(super) fn vertex(job: &JobHandle, id: &str) -> Result<u32, ApiError> {
    let parsed: VertexId = id
        .parse()
        .map_err(|_invalid| ApiError::path_parameter("vertexid", id))?;
    let vertices = (0u32..).zip(&job.info().graph.vertices);
    vertices
        .filter(|(_, vertex)| vertex.id() == parsed)
        .map(|(position, _)| position)
        .next()
        .ok_or_else(|| ApiError::not_found(format!("JobVertex {parsed} not found")))
}

/// A number in the path.
pub(super) fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|_invalid| ApiError::path_parameter(name, text))
}

/// A JSON body; none stands for an empty object, unknown fields are ignored.
pub(super) fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        bytes
    };
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::bad_request(format!(
            "Bad request, the body cannot be read as JSON of the expected form: {error}"
        ))
    })
}

/// The body of a request to plan or run a module.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RunBody {
    program_args: Option<String>,
    program_args_list: Option<Vec<String>>,
    parallelism: Option<i64>,
    job_id: Option<String>,
    savepoint_path: Option<String>,
    allow_non_restored_state: Option<bool>,
    claim_mode: Option<String>,
    restore_mode: Option<String>,
    flink_configuration: Option<BTreeMap<String, String>>,
}

/// What a request asks for; its body goes before its query string.
pub(super) fn submission(pairs: &Pairs, body: RunBody) -> Result<Submission, ApiError> {
    let invalid = |name: &str, value: &str| {
        let value: String = value.chars().take(64).collect();
        ApiError::bad_request(format!("\"{value}\" is not a valid value of {name}"))
    };
    let args = match (body.program_args_list, body.program_args) {
        (Some(list), _) => list,
        (None, Some(text)) => tokenize(&text),
        (None, None) => list(pairs, "programArg")
            .or_else(|| list(pairs, "programArgsList"))
            .or_else(|| {
                param(pairs, "programArgs")
                    .or_else(|| param(pairs, "program-args"))
                    .map(tokenize)
            })
            .unwrap_or_default(),
    };
    let parallelism = match (body.parallelism, param(pairs, "parallelism")) {
        (Some(number), _) => Some(number.to_string()),
        (None, text) => text.map(str::to_owned),
    };
    let parallelism = parallelism
        .map(|text| {
            text.parse::<u32>()
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(|| invalid("parallelism", &text))
        })
        .transpose()?;
    let job = body
        .job_id
        .or_else(|| param(pairs, "jobId").map(str::to_owned));
    let job = job
        .map(|id| id.parse::<JobId>().map_err(|_e| invalid("jobId", &id)))
        .transpose()?;
    let allow = match (
        body.allow_non_restored_state,
        param(pairs, "allowNonRestoredState"),
    ) {
        (Some(allow), _) => allow,
        (None, None) => false,
        (None, Some(text)) => text
            .parse()
            .map_err(|_e| invalid("allowNonRestoredState", text))?,
    };
    let claim = body.claim_mode.or(body.restore_mode);
    let claim = claim
        .as_deref()
        .or_else(|| param(pairs, "claimMode"))
        .or_else(|| param(pairs, "restoreMode"));
    if let Some(mode) = claim
        && !["CLAIM", "NO_CLAIM", "LEGACY"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(mode))
    {
        return Err(invalid("claimMode", mode));
    }
    let path = body
        .savepoint_path
        .or_else(|| param(pairs, "savepointPath").map(str::to_owned));
    Ok(Submission {
        args,
        parallelism,
        config: body.flink_configuration.unwrap_or_default(),
        job,
        restore_path: path.filter(|path| !path.trim().is_empty()),
        allow_non_restored: allow,
    })
}

/// Splits program arguments at white space, except inside of quotes.
fn tokenize(text: &str) -> Vec<String> {
    let (mut args, mut current, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                current.get_or_insert_default();
            }
            None if c.is_whitespace() => args.extend(current.take()),
            _ => current.get_or_insert_default().push(c),
        }
    }
    args.extend(current);
    args
}

/// The state that handlers share.
pub(super) type Shared = axum::extract::State<Arc<Cluster>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_arguments_are_split_like_a_shell_does() {
        assert_eq!(
            tokenize("--topic clicks  --name 'my job' \"a b\""),
            ["--topic", "clicks", "--name", "my job", "a b"]
        );
        assert_eq!(tokenize("  "), Vec::<String>::new());
        assert_eq!(tokenize("--empty ''"), ["--empty", ""]);
    }

    #[test]
    fn the_body_goes_before_the_query() {
        let pairs = Query(vec![
            ("parallelism".to_owned(), "2".to_owned()),
            ("programArg".to_owned(), "--a,1".to_owned()),
        ]);
        let both = submission(
            &pairs,
            body(br#"{"programArgsList": ["x y"], "unknown": 1}"#).unwrap(),
        )
        .unwrap();
        assert_eq!(
            (both.args, both.parallelism),
            (vec!["x y".to_owned()], Some(2))
        );
        let query = submission(&pairs, body(b"").unwrap()).unwrap();
        assert_eq!(query.args, ["--a", "1"]);
    }

    #[test]
    fn wrong_values_are_refused() {
        let none = Query(vec![]);
        for wrong in [
            r#"{"parallelism": 0}"#,
            r#"{"jobId": "x"}"#,
            r#"{"claimMode": "STEAL"}"#,
        ] {
            assert!(
                submission(&none, body(wrong.as_bytes()).unwrap()).is_err(),
                "{wrong}"
            );
        }
        assert!(body::<RunBody>(b"[").is_err());
    }
}
