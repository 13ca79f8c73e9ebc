//! What a cluster's answers mean. The only place that reads them; their words are never quoted.

use kube::core::Status;
use kube::runtime::watcher;

use super::gone::Missing;
use super::object::plural;
use crate::metrics::Alarm;

/// Why nothing is learned just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the kubeconfig cannot be used")]
    Config,
    #[error("plain text, or a certificate that nobody checks: the cluster is reached by TLS, or on loopback")]
    Unsafe,
    #[error("the cluster does not know the login")]
    Unknown,
    #[error("the login may not do that: it needs `get`, `list` and `watch` on what is watched")]
    Denied,
    #[error("the cluster does not take the question: is the selector right?")]
    Question,
    #[error("the place in the watch is too old")]
    TooOld,
    #[error("the cluster is busy")]
    Busy,
    #[error("the cluster does not answer")]
    Silent,
    #[error("the answer is none of Kubernetes")]
    Foreign,
    #[error("this is another cluster: the uid of its `kube-system` is not the one in the configuration")]
    OtherCluster,
    #[error("the journal cannot be read")]
    Journal,
}

impl Fault {
    /// In metrics.
    pub(super) const fn alarm(self) -> Option<Alarm> {
        match self {
            Self::Config | Self::Unsafe | Self::Unknown | Self::Denied | Self::Question => {
                Some(Alarm::KubernetesRefused)
            }
            Self::OtherCluster => Some(Alarm::KubernetesOtherCluster),
            Self::TooOld | Self::Busy | Self::Silent | Self::Foreign | Self::Journal => None,
        }
    }
}

impl From<&kube::Error> for Fault {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => of_status(status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Foreign,
            kube::Error::Auth(_) => Self::Unknown,
            kube::Error::RustlsTls(_)
            | kube::Error::TlsRequired
            | kube::Error::BuildRequest(_)
            | kube::Error::ProxyProtocolUnsupported { .. }
            | kube::Error::ProxyProtocolDisabled { .. } => Self::Config,
            _ => Self::Silent,
        }
    }
}

impl From<&watcher::Error> for Fault {
    fn from(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error.into(),
            watcher::Error::WatchError(status) => of_status(status),
            watcher::Error::NoResourceVersion => Self::Foreign,
        }
    }
}

fn of_status(status: &Status) -> Fault {
    match status.code {
        400 | 422 => Fault::Question,
        401 => Fault::Unknown,
        403 => Fault::Denied,
        404 | 405 => Fault::Foreign,
        410 => Fault::TooOld,
        429 => Fault::Busy,
        _ => Fault::Silent,
    }
}

/// Whether the cluster says clearly that there is no such object. A path that nobody serves is a 404 as well: that one
/// names no object.
pub(super) fn is_gone(error: &kube::Error, missing: &Missing) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let named = status.details.as_ref();
    let same = named.is_some_and(|it| it.name == missing.name && it.kind == plural(missing.sort));
    status.code == 404 && status.reason == "NotFound" && same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::kubernetes::Sort;

    fn answer(body: serde_json::Value) -> kube::Error {
        kube::Error::Api(Box::new(serde_json::from_value(body).unwrap()))
    }

    #[test]
    fn only_a_404_that_names_the_object_says_that_it_is_gone() {
        let missing =
            Missing { sort: Sort::Job, namespace: "ml".into(), name: "train".into(), uid: "1".into(), attempt: 1 };
        let of = |code: u16, reason: &str, name: &str, kind: &str| {
            let details = serde_json::json!({"name": name, "group": "batch", "kind": kind});
            answer(serde_json::json!({"status": "Failure", "code": code, "reason": reason, "message": "c4nary",
                "details": details}))
        };
        assert!(is_gone(&of(404, "NotFound", "train", "jobs"), &missing));
        for other in [
            of(404, "NotFound", "train2", "jobs"),
            of(404, "NotFound", "train", "pods"),
            of(404, "NotFound", "", "jobs"),
            of(404, "", "train", "jobs"),
            of(403, "Forbidden", "train", "jobs"),
            of(410, "Gone", "train", "jobs"),
            of(500, "NotFound", "train", "jobs"),
            // What an apiserver says of a path that it does not serve, and what a proxy says.
            answer(serde_json::json!({"status": "Failure", "code": 404, "reason": "NotFound", "details": {}})),
            answer(serde_json::json!({"status": "Failure", "code": 404, "reason": "NotFound"})),
            kube::Error::TlsRequired,
        ] {
            assert!(!is_gone(&other, &missing), "{other:?}");
        }
    }

    #[test]
    fn a_fault_never_quotes() {
        let codes = [400, 401, 403, 404, 410, 422, 429, 500, 503];
        for code in codes {
            let fault =
                Fault::from(&answer(serde_json::json!({"code": code, "message": "c4nary", "reason": "c4nary"})));
            assert!(!fault.to_string().contains("c4nary"), "{code}");
        }
    }
}
