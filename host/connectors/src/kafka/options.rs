//! The options, checked.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use regex::Regex;
use tidemill_types::ConnectorConfig;

use crate::{ConnectorError, options::OptionReader};

const DISCOVERY_DEFAULT: Duration = Duration::from_secs(300);
/// Asking brokers more often than this for their topics would only load them.
const DISCOVERY_MIN: Duration = Duration::from_millis(10);

/// Which topics are read.
#[derive(Debug, Clone)]
pub(crate) enum Topics {
    /// These.
    Names(Vec<String>),
    /// All whose whole names match.
    Pattern(Regex),
}

/// Where reading begins when there is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Startup {
    Earliest,
    Latest,
    Group,
    Timestamp(i64),
}

/// Where reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Never,
    Latest,
    Timestamp(i64),
}

/// What to do where a group has committed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
}

#[derive(Debug, Clone)]
pub(crate) struct SourceOptions {
    pub(crate) topics: Topics,
    pub(crate) startup: Startup,
    pub(crate) bound: Bound,
    pub(crate) discovery: Option<Duration>,
    pub(crate) reset: Option<Reset>,
    pub(crate) commits: bool,
    pub(crate) client: ClientConfig,
}

#[derive(Debug, Clone)]
pub(crate) struct SinkOptions {
    pub(crate) topic: String,
    /// Whether a barrier waits for the acknowledgements.
    pub(crate) acknowledged: bool,
    pub(crate) client: ClientConfig,
}

impl SourceOptions {
    pub(crate) fn read(config: &ConnectorConfig) -> Result<Self, ConnectorError> {
        let mut reader = OptionReader::new("kafka source", &config.options);
        let topics = topics(&mut reader)?;
        let startup = startup(&mut reader)?;
        let bound = bound(&mut reader)?;
        let discovery = match reader.duration("scan.topic-partition-discovery.interval")? {
            None => Some(DISCOVERY_DEFAULT),
            Some(Duration::ZERO) => None,
            Some(interval) => Some(interval.max(DISCOVERY_MIN)),
        };
        let isolation = reader.choice(
            "isolation-level",
            &[
                ("read_uncommitted", "read_uncommitted"),
                ("read_committed", "read_committed"),
            ],
        )?;
        let mut properties = reader.with_prefix("properties.");
        let commits = properties.remove("commit.offsets.on.checkpoint").as_deref() != Some("false")
            && properties.contains_key("group.id");
        if let Some(isolation) = isolation {
            properties.insert("isolation.level".to_owned(), isolation.to_owned());
        }
        let reset = match properties.get("auto.offset.reset").map(String::as_str) {
            Some("earliest" | "smallest" | "beginning") => Some(Reset::Earliest),
            Some("latest" | "largest" | "end") => Some(Reset::Latest),
            _ => None,
        };
        let client = client(&reader, &properties, &SOURCE_DEFAULTS, &SOURCE_FIXED)?;
        reader.finish()?;
        Ok(Self {
            topics,
            startup,
            bound,
            discovery,
            reset,
            commits,
            client,
        })
    }
}

impl SinkOptions {
    pub(crate) fn read(config: &ConnectorConfig) -> Result<Self, ConnectorError> {
        #[derive(Clone, Copy)]
        enum Guarantee {
            Nothing,
            AtLeastOnce,
            ExactlyOnce,
        }
        let mut reader = OptionReader::new("kafka sink", &config.options);
        let topic = reader.required("topic")?.to_owned();
        check_topic(&reader, &topic)?;
        let guarantee = reader.choice(
            "delivery-guarantee",
            &[
                ("none", Guarantee::Nothing),
                ("at-least-once", Guarantee::AtLeastOnce),
                ("exactly-once", Guarantee::ExactlyOnce),
            ],
        )?;
        reader.text("transactional-id-prefix");
        if matches!(guarantee, Some(Guarantee::ExactlyOnce)) {
            return Err(reader.invalid(
                "`delivery-guarantee` = exactly-once is not supported by this version yet; use at-least-once",
            ));
        }
        let properties = reader.with_prefix("properties.");
        if properties.contains_key("transactional.id") {
            return Err(
                reader.invalid("`properties.transactional.id` cannot be set; the sink has its own")
            );
        }
        // What the user says about acknowledgements must not contradict the idempotence we add.
        let own_acks = ["acks", "request.required.acks", "enable.idempotence"]
            .iter()
            .any(|name| properties.contains_key(*name));
        let fixed: &[(&str, &str)] = if own_acks {
            &[]
        } else {
            &[("acks", "all"), ("enable.idempotence", "true")]
        };
        let client = client(&reader, &properties, &SINK_DEFAULTS, fixed)?;
        reader.finish()?;
        let acknowledged = !matches!(guarantee, Some(Guarantee::Nothing));
        Ok(Self {
            topic,
            acknowledged,
            client,
        })
    }
}

/// What we set unless the user does.
const SOURCE_DEFAULTS: [(&str, &str); 8] = [
    // The default here is the other way round in librdkafka.
    ("isolation.level", "read_uncommitted"),
    ("auto.offset.reset", "error"),
    // Never used to join a group; librdkafka wants one.
    ("group.id", "tidemill"),
    // What is fetched ahead bounds the memory of a consumer, whatever its partitions …
    ("queued.max.messages.kbytes", "8192"),
    // … and when that was reached, fetching goes on soon (librdkafka: after a second).
    ("fetch.queue.backoff.ms", "10"),
    ("reconnect.backoff.max.ms", "2000"),
    ("statistics.interval.ms", "2000"),
    ("socket.keepalive.enable", "true"),
];

/// What the user cannot change without breaking the source.
const SOURCE_FIXED: [(&str, &str); 3] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
];

const SINK_DEFAULTS: [(&str, &str); 5] = [
    ("queue.buffering.max.kbytes", "65536"),
    // A record that could not be delivered for so long fails the job.
    ("message.timeout.ms", "60000"),
    ("reconnect.backoff.max.ms", "2000"),
    ("statistics.interval.ms", "0"),
    ("socket.keepalive.enable", "true"),
];

/// Other names of the same option.
const ALIASES: [(&str, &str); 3] = [
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("bootstrap.servers", "metadata.broker.list"),
    ("queue.buffering.max.kbytes", "queue.buffering.max.messages"),
];

/// Properties of librdkafka that reach beyond the connection. The options of a job come from whoever
/// uploaded it, and the client runs in the worker's process: these would load code into it (a
/// plugin, an engine or provider of OpenSSL), run commands, send signals to its threads, or open
/// files that the worker may read and the job's author may not.
const REFUSED: [&str; 8] = [
    "plugin.",
    "interceptors",
    "internal.",
    "offset.store.",
    "sasl.kerberos.",
    "ssl.engine.",
    "ssl.providers",
    "opaque",
];

/// Whether a job may set this property. What names files can be given in place instead.
fn check_property(reader: &OptionReader<'_>, name: &str) -> Result<(), ConnectorError> {
    let name = name.trim();
    if name.ends_with(".location") || name.ends_with(".file") {
        return Err(reader.invalid(&format!(
            "`properties.{name}` names a file of the worker, which jobs cannot use; give the \
             certificate or key itself, with ssl.ca.pem, ssl.certificate.pem or ssl.key.pem"
        )));
    }
    if REFUSED.iter().any(|refused| name.starts_with(refused)) {
        return Err(reader.invalid(&format!("`properties.{name}` cannot be set by a job")));
    }
    Ok(())
}

fn client(
    reader: &OptionReader<'_>,
    properties: &BTreeMap<String, String>,
    defaults: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> Result<ClientConfig, ConnectorError> {
    let given = |name: &str| {
        let alias = ALIASES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, alias)| *alias);
        properties.contains_key(name) || alias.is_some_and(|alias| properties.contains_key(alias))
    };
    if !given("bootstrap.servers") {
        return Err(reader.invalid(
            "the option `properties.bootstrap.servers` is missing; set it to host:port,…",
        ));
    }
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Notice);
    for (name, value) in defaults.iter().filter(|(name, _)| !given(name)) {
        client.set(*name, *value);
    }
    for (name, value) in properties {
        check_property(reader, name)?;
        client.set(name, value);
    }
    for (name, value) in fixed {
        client.set(*name, *value);
    }
    client.create_native_config().map_err(|error| match error {
        rdkafka::error::KafkaError::ClientConfig(_, text, name, value) => reader.invalid(&format!(
            "`properties.{name}` = \"{}\" is refused: {text}",
            shown(&name, &value)
        )),
        error => reader.invalid(&format!("the properties are refused: {error}")),
    })?;
    Ok(client)
}

/// Secrets must not reach error messages.
fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    let secret = ["password", "secret", "key.pem", "jaas", "token"];
    if secret.iter().any(|word| name.contains(word)) {
        "***"
    } else {
        value
    }
}

fn topics(reader: &mut OptionReader<'_>) -> Result<Topics, ConnectorError> {
    let names = reader.text("topics");
    let pattern = reader.parsed("topic-pattern", "a regular expression", |pattern| {
        Regex::new(&format!("^(?:{pattern})$")).ok()
    })?;
    match (names, pattern) {
        (Some(names), None) => {
            let mut names: Vec<String> = names
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect();
            for name in &names {
                check_topic(reader, name)?;
            }
            names.sort();
            names.dedup();
            Ok(Topics::Names(names))
        }
        (None, Some(pattern)) => Ok(Topics::Pattern(pattern)),
        _ => Err(reader.invalid("set either `topics` or `topic-pattern`")),
    }
}

fn check_topic(reader: &OptionReader<'_>, name: &str) -> Result<(), ConnectorError> {
    let fine = (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fine {
        return Ok(());
    }
    Err(reader.invalid(&format!(
        "\"{}\" is not the name of a topic (1 to 249 of a-z, A-Z, 0-9, dot, _ and -)",
        name.escape_debug()
    )))
}

fn timestamp(
    reader: &mut OptionReader<'_>,
    name: &'static str,
    wanted: bool,
) -> Result<i64, ConnectorError> {
    let value = reader.parsed(name, "milliseconds since the epoch", |v| {
        v.parse::<i64>().ok().filter(|ms| *ms >= 0)
    })?;
    match (value, wanted) {
        (Some(ms), true) => Ok(ms),
        (None, false) => Ok(0),
        (None, true) => Err(reader.invalid(&format!("the mode `timestamp` needs `{name}`"))),
        (Some(_), false) => Err(reader.invalid(&format!("`{name}` needs the mode `timestamp`"))),
    }
}

fn startup(reader: &mut OptionReader<'_>) -> Result<Startup, ConnectorError> {
    let mode = reader.choice(
        "scan.startup.mode",
        &[
            ("earliest-offset", Startup::Earliest),
            ("latest-offset", Startup::Latest),
            ("group-offsets", Startup::Group),
            ("timestamp", Startup::Timestamp(0)),
        ],
    )?;
    let mode = mode.unwrap_or(Startup::Earliest);
    let wanted = matches!(mode, Startup::Timestamp(_));
    let ms = timestamp(reader, "scan.startup.timestamp-millis", wanted)?;
    Ok(if wanted { Startup::Timestamp(ms) } else { mode })
}

fn bound(reader: &mut OptionReader<'_>) -> Result<Bound, ConnectorError> {
    let mode = reader.choice(
        "scan.bounded.mode",
        &[
            ("unbounded", Bound::Never),
            ("latest-offset", Bound::Latest),
            ("timestamp", Bound::Timestamp(0)),
        ],
    )?;
    let mode = mode.unwrap_or(Bound::Never);
    let wanted = matches!(mode, Bound::Timestamp(_));
    let ms = timestamp(reader, "scan.bounded.timestamp-millis", wanted)?;
    Ok(if wanted { Bound::Timestamp(ms) } else { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> ConnectorConfig {
        let options = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ConnectorConfig {
            kind: "kafka".into(),
            options,
        }
    }

    const BROKER: (&str, &str) = ("properties.bootstrap.servers", "localhost:9092");

    #[test]
    fn defaults_read_from_the_start_for_ever() {
        let options = SourceOptions::read(&config(&[BROKER, ("topics", "b, a,b")])).unwrap();
        assert!(matches!(&options.topics, Topics::Names(names) if names == &["a", "b"]));
        assert_eq!(
            (options.startup, options.bound),
            (Startup::Earliest, Bound::Never)
        );
        assert_eq!(options.discovery, Some(DISCOVERY_DEFAULT));
        assert!(!options.commits, "no group, no commits");
        assert_eq!(
            options.client.get("isolation.level"),
            Some("read_uncommitted")
        );
    }

    #[test]
    fn wrong_source_options_are_named() {
        for (options, message) in [
            (
                &[("topics", "a")][..],
                "kafka source: the option `properties.bootstrap.servers` is missing",
            ),
            (&[BROKER], "set either `topics` or `topic-pattern`"),
            (
                &[BROKER, ("topics", "a/b")],
                "\"a/b\" is not the name of a topic",
            ),
            (
                &[BROKER, ("topic-pattern", "(")],
                "`topic-pattern` is \"(\", not a regular expression",
            ),
            (
                &[BROKER, ("topics", "a"), ("scan.startup.mode", "timestamp")],
                "needs `scan.startup.timestamp-millis`",
            ),
            (
                &[
                    BROKER,
                    ("topics", "a"),
                    ("scan.bounded.timestamp-millis", "5"),
                ],
                "needs the mode `timestamp`",
            ),
            (
                &[BROKER, ("topics", "a"), ("properties.fetch.min.bytez", "5")],
                "No such configuration property",
            ),
            (
                &[BROKER, ("topics", "a"), ("scan.startup.mod", "x")],
                "did you mean `scan.startup.mode`?",
            ),
        ] {
            let error = SourceOptions::read(&config(options))
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_sink_is_idempotent_unless_its_acks_are_the_users_own() {
        let options = SinkOptions::read(&config(&[BROKER, ("topic", "a")])).unwrap();
        assert_eq!(options.client.get("enable.idempotence"), Some("true"));
        assert!(options.acknowledged);
        let own = [
            BROKER,
            ("topic", "a"),
            ("properties.acks", "1"),
            ("delivery-guarantee", "none"),
        ];
        let options = SinkOptions::read(&config(&own)).unwrap();
        assert_eq!(options.client.get("enable.idempotence"), None);
        assert!(!options.acknowledged);
    }

    #[test]
    fn exactly_once_is_refused_for_now() {
        let options = [
            BROKER,
            ("topic", "a"),
            ("delivery-guarantee", "exactly-once"),
        ];
        let error = SinkOptions::read(&config(&options))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("not supported by this version yet"),
            "{error}"
        );
    }

    #[test]
    fn librdkafka_can_do_what_clusters_ask_for() {
        let native = ClientConfig::new().create_native_config().unwrap();
        let features = native.get("builtin.features").unwrap();
        for feature in [
            "ssl",
            "sasl_plain",
            "sasl_scram",
            "gzip",
            "snappy",
            "lz4",
            "zstd",
        ] {
            assert!(features.contains(feature), "{feature} is not in {features}");
        }
    }

    #[test]
    fn what_reaches_into_the_worker_is_refused() {
        for (name, value) in [
            ("properties.plugin.library.paths", "/tmp/evil.so"),
            ("properties.ssl.engine.location", "/tmp/evil.so"),
            ("properties.ssl.providers", "../../tmp/evil"),
            ("properties.sasl.kerberos.kinit.cmd", "touch /tmp/x"),
            ("properties.internal.termination.signal", "9"),
            ("properties.ssl.key.location", "/etc/ssl/private/key.pem"),
            ("properties.https.ca.location", "/etc/passwd"),
            ("properties.sasl.oauthbearer.assertion.file", "/etc/passwd"),
        ] {
            let source = SourceOptions::read(&config(&[BROKER, ("topics", "a"), (name, value)]));
            let sink = SinkOptions::read(&config(&[BROKER, ("topic", "a"), (name, value)]));
            for error in [source.unwrap_err(), sink.unwrap_err()] {
                let error = error.to_string();
                assert!(error.contains(name), "{error}");
                assert!(!error.contains(value), "{error}");
            }
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("sasl.password", "geheim"), "***");
    }
}
