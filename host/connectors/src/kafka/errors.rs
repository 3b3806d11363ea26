//! Kafka's errors in our terms.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use crate::ConnectorError;

/// Sorts an error by what can be done. `what` names the connector and what it tried.
pub(super) fn sort(what: &str, error: &KafkaError, detail: Option<&str>) -> ConnectorError {
    let code = error.rdkafka_error_code();
    let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
    let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
    let text = format!("{what}: {reason}{detail}");
    match code {
        Some(code) if is_refusal(code) => ConnectorError::Invalid(text),
        Some(code) if is_absence(code) => ConnectorError::Unreachable(text),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => ConnectorError::Lost(text),
        _ => ConnectorError::Failed(text),
    }
}

/// Access is denied or credentials are wrong: it will stay so.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::MessageSizeTooLarge
    )
}

/// Nobody answers: somebody may later.
const fn is_absence(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::Resolve
            | Code::WaitingForCoordinator
            | Code::LeaderNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
    )
}

/// Whether librdkafka goes on by itself after this error of a consumer.
pub(super) const fn heals(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::WaitingForCoordinator
            | Code::LeaderNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotLeaderForPartition
    )
}
