//! What AWS's errors mean: by their code and, where there is none, by the status. Their texts are never read.

use aws_sdk_iam::config::http::HttpResponse;
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};

use crate::case::record::FailureKind;
use crate::connector::Failure;

/// What an error means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// There is no such user, key, secret or version.
    Gone,
    /// Our login works, and may not do this; or it works no more: the identity tells which.
    Forbidden,
    /// One of AWS's quotas of things that there may be leaves no room: nothing was done.
    Full,
    /// All else.
    Failed(Failure),
}

/// What `error` means for a call that changes something (`has_effect`) or only looks.
pub fn meaning<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, has_effect: bool) -> Meaning {
    let doubt = if has_effect { FailureKind::Unknown } else { FailureKind::Unavailable };
    let (kind, note) = match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            return of_code(answer.err().code(), status, after_ms(answer.raw()), doubt);
        }
        SdkError::TimeoutError(_) => (doubt, "no answer in time"),
        // Where the login cannot be had nothing was sent; a broken connection may have carried the call.
        SdkError::DispatchFailure(_) => (doubt, "no connection to AWS, or it broke, or our login cannot be read"),
        SdkError::ResponseError(_) => (doubt, "AWS's answer cannot be read"),
        _ => (FailureKind::Refused, "the call cannot be built"),
    };
    Meaning::Failed(Failure::new(kind, note))
}

/// What an answer with this code means. AWS throttles with a 400 as well.
fn of_code(code: Option<&str>, status: u16, after_ms: Option<i64>, doubt: FailureKind) -> Meaning {
    let (kind, note) = match code {
        Some(
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "TooManyRequests"
            | "ProvisionedThroughputExceededException"
            | "BandwidthLimitExceeded"
            | "PriorRequestNotComplete"
            | "SlowDown",
        ) => (FailureKind::Throttled { after_ms }, "AWS throttles our calls"),
        Some("NoSuchEntity" | "NoSuchEntityException" | "ResourceNotFoundException") => return Meaning::Gone,
        Some("AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation") => return Meaning::Forbidden,
        Some(
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "AuthFailure"
            | "OptInRequired",
        ) => (FailureKind::Denied, "AWS refuses our own login"),
        // Somebody else changes it right now: nothing was done.
        Some(
            "ConcurrentModification"
            | "ConcurrentModificationException"
            | "EntityTemporarilyUnmodifiable"
            | "EntityTemporarilyUnmodifiableException",
        ) => (FailureKind::Unavailable, "AWS is changing this"),
        // Secrets Manager compares labels and ids before it changes anything.
        Some("InvalidParameterException" | "ResourceExistsException") if doubt == FailureKind::Unknown => {
            (FailureKind::Unavailable, "somebody else changed the secret at the same time")
        }
        Some("InvalidRequestException") => {
            (FailureKind::Refused, "the secret is scheduled for deletion, or has no value")
        }
        Some("DecryptionFailure" | "EncryptionFailure") => {
            (FailureKind::Refused, "the key of KMS that the secret is encrypted with is not ours to use")
        }
        Some("LimitExceeded" | "LimitExceededException") => return Meaning::Full,
        Some("UnmodifiableEntity" | "UnmodifiableEntityException") => {
            (FailureKind::Refused, "a service of AWS owns this user or role")
        }
        // Something before AWS answers.
        None => (doubt, "the answer is none of AWS's"),
        Some(_) if status >= 500 => (doubt, "AWS is not ready"),
        Some("ServiceFailure" | "InternalFailure" | "InternalError" | "ServiceUnavailable") => {
            (doubt, "AWS is not ready")
        }
        Some(_) => (FailureKind::Refused, "AWS refuses the call as such"),
    };
    Meaning::Failed(Failure::new(kind, note))
}

/// How long AWS asks us to wait, where it says so.
fn after_ms(answer: &HttpResponse) -> Option<i64> {
    let headers = answer.headers();
    let ms = headers.get("x-amz-retry-after").and_then(|text| text.parse().ok());
    ms.or_else(|| headers.get("retry-after")?.parse::<i64>().ok()?.checked_mul(1_000)).filter(|ms| *ms >= 0)
}

/// What it means for a call that there is no room.
pub fn full() -> Failure {
    let note = "one of AWS's quotas leaves no room: of the user's or the role's policies, or the secret's versions";
    Failure::new(FailureKind::Refused, note)
}

/// An answer without what it must have.
pub fn odd() -> Failure {
    Failure::new(FailureKind::Unavailable, "AWS's answer lacks what it must have")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Option<&str>, status: u16) -> Option<FailureKind> {
        match of_code(code, status, None, FailureKind::Unknown) {
            Meaning::Failed(failure) => Some(failure.kind),
            Meaning::Gone | Meaning::Forbidden | Meaning::Full => None,
        }
    }

    #[test]
    fn a_code_counts_for_more_than_its_status() {
        let throttled = Some(FailureKind::Throttled { after_ms: None });
        for (code, status) in [("Throttling", 400), ("RequestLimitExceeded", 503), ("TooManyRequestsException", 429)] {
            assert_eq!(kind(Some(code), status), throttled, "{code}");
        }
        assert_eq!(of_code(Some("NoSuchEntity"), 404, None, FailureKind::Unknown), Meaning::Gone);
        assert_eq!(of_code(Some("AccessDenied"), 403, None, FailureKind::Unknown), Meaning::Forbidden);
        assert_eq!(of_code(Some("LimitExceeded"), 409, None, FailureKind::Unknown), Meaning::Full);
        assert_eq!(kind(Some("InvalidClientTokenId"), 403), Some(FailureKind::Denied));
        assert_eq!(kind(Some("ValidationError"), 400), Some(FailureKind::Refused));
        assert_eq!(kind(Some("EntityTemporarilyUnmodifiable"), 409), Some(FailureKind::Unavailable));
    }

    #[test]
    fn what_may_have_happened_is_in_doubt() {
        for (code, status) in [(Some("ServiceFailure"), 500), (Some("Whatever"), 503), (None, 502), (None, 404)] {
            assert_eq!(kind(code, status), Some(FailureKind::Unknown), "{code:?} {status}");
        }
    }
}
