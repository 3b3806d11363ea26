//! S3 and what speaks its API.
//!
//! Credentials and endpoint come from the configuration by Flink's keys, and where those are not
//! set from the usual AWS environment (variables, web identity, container, instance metadata).
//!
//! | key | meaning |
//! |---|---|
//! | `s3.access-key`, `s3.secret-key` | credentials (also `s3.access.key`, `s3.secret.key`) |
//! | `s3.session-token` | for temporary credentials |
//! | `s3.endpoint` | another server than Amazon's |
//! | `s3.path.style.access` | `false`: the bucket becomes part of the endpoint's host name |
//! | `s3.region` | default `us-east-1` where an endpoint is set |
//!
//! The same keys are read with `s3a.` and `fs.s3a.` before them instead of `s3.`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use object_store::{
    ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
};

/// A request is tried again for at most so long; whoever waits for it has time limits of his own.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// … and at most so often.
const RETRIES_MAX: usize = 8;

/// Our names and the library's.
const KEYS: [(&[&str], AmazonS3ConfigKey); 4] = [
    (
        &["access-key", "access.key"],
        AmazonS3ConfigKey::AccessKeyId,
    ),
    (
        &["secret-key", "secret.key"],
        AmazonS3ConfigKey::SecretAccessKey,
    ),
    (
        &["session-token", "session.token"],
        AmazonS3ConfigKey::Token,
    ),
    (&["region", "endpoint.region"], AmazonS3ConfigKey::Region),
];

fn lookup<'a>(config: &'a BTreeMap<String, String>, names: &[&str]) -> Option<&'a str> {
    ["s3.", "s3a.", "fs.s3a."]
        .iter()
        .flat_map(|prefix| names.iter().map(move |name| format!("{prefix}{name}")))
        .find_map(|key| config.get(&key))
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

pub(crate) fn open(
    bucket: &str,
    config: &BTreeMap<String, String>,
) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        });
    for (names, key) in KEYS {
        if let Some(value) = lookup(config, names) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = lookup(config, &["endpoint"]) {
        let endpoint = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("https://{endpoint}")
        };
        builder = builder.with_allow_http(endpoint.starts_with("http://"));
        builder = if lookup(config, &["path.style.access"]) == Some("false") {
            let with_bucket = endpoint.replacen("://", &format!("://{bucket}."), 1);
            builder
                .with_virtual_hosted_style_request(true)
                .with_endpoint(with_bucket)
        } else {
            builder.with_endpoint(endpoint)
        };
    }
    builder
        .build()
        .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        .map_err(|e| e.to_string())
}
