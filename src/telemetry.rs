//! Logs: `tracing`, as text or JSON, on stderr. No secrets: crates that would print some are capped, whatever is asked.

use std::io;
use std::sync::Once;

use tokio::task::JoinError;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use crate::config::Log;

/// The most that these may say. `vaultrs` logs Vault's errors in Vault's words, and prints tokens in `{:?}`; `kube` logs
/// whole lists that it cannot read; AWS's SDK logs requests as they are sent, with the tokens of sessions.
const CAPS: [(&str, LevelFilter); 26] = [
    ("vaultrs", LevelFilter::OFF),
    ("rustify", LevelFilter::OFF),
    ("rustify_derive", LevelFilter::OFF),
    ("kube_client", LevelFilter::OFF),
    ("kube_core", LevelFilter::OFF),
    ("kube_runtime", LevelFilter::OFF),
    ("aws_smithy_runtime", LevelFilter::OFF),
    ("aws_smithy_runtime_api", LevelFilter::OFF),
    ("aws_smithy_http_client", LevelFilter::OFF),
    ("aws_sigv4", LevelFilter::OFF),
    ("aws_runtime", LevelFilter::OFF),
    ("aws_sdk_iam", LevelFilter::OFF),
    ("aws_sdk_secretsmanager", LevelFilter::OFF),
    ("aws_sdk_sts", LevelFilter::OFF),
    ("aws_config", LevelFilter::WARN),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    ("sqlx", LevelFilter::WARN),
    ("tower", LevelFilter::INFO),
    ("tower_http", LevelFilter::INFO),
    ("axum", LevelFilter::INFO),
    ("rdkafka", LevelFilter::INFO),
    ("librdkafka", LevelFilter::INFO),
];

/// What is logged: `asked` (a level, or `target=level,…`), under the caps.
///
/// # Errors
/// It is neither.
pub fn filter(asked: &str) -> Result<Targets, tracing_subscriber::filter::ParseError> {
    let asked: Targets = asked.parse()?;
    let base = asked.default_level().unwrap_or(LevelFilter::OFF);
    // A directive for a module of a capped crate would be more specific than its cap: such are dropped.
    let free = asked.into_iter().filter(|(target, _)| {
        let name = target.split("::").next().unwrap_or_default();
        CAPS.iter().all(|(capped, _)| *capped != name)
    });
    let capped = CAPS.into_iter().map(|(target, cap)| (target.to_owned(), cap.min(base)));
    let all: Targets = free.chain(capped).collect();
    Ok(all.with_default(base))
}

/// Starts logging; `over` (`RUST_LOG`) goes over the configured level.
///
/// # Errors
/// Logging was started before.
pub fn start(log: &Log, over: Option<&str>) -> Result<(), TryInitError> {
    let asked = over.and_then(|over| filter(over).ok());
    let filter = asked.or_else(|| filter(&log.level).ok()).unwrap_or_default();
    let layer = if log.json {
        fmt::layer().json().flatten_event(true).with_current_span(true).with_writer(io::stderr).boxed()
    } else {
        fmt::layer().with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_writer(io::stderr).boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    quiet_panics();
    Ok(())
}

/// How a task of ours ended: a `JoinError` says its panic's message in its own, and that may quote anything.
pub fn died(error: &JoinError) -> &'static str {
    if error.is_panic() { "a task of Curfew's own panicked" } else { "a task of Curfew's own was ended" }
}

/// A panic's message may quote what was being worked on: only its place is said.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            if tracing::dispatcher::has_been_set() {
                tracing::error!(%place, %thread, "a bug in Curfew: panicked");
            } else {
                eprintln!("curfew: a bug: panicked at {place}");
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn caps_hold_whatever_is_asked() {
        for asked in
            ["trace", "info,vaultrs=trace", "trace,vaultrs::client=trace,rustify::endpoint=debug", "vault=trace"]
        {
            let filter = filter(asked).unwrap();
            for target in ["vaultrs", "vaultrs::client", "rustify::endpoint", "aws_smithy_runtime::client"] {
                assert!(!filter.would_enable(target, &Level::ERROR), "{asked} {target}");
            }
            assert!(!filter.would_enable("hyper::proto", &Level::DEBUG), "{asked}");
        }
        let filter = filter("warn,curfew=debug").unwrap();
        assert!(filter.would_enable("curfew::executor", &Level::DEBUG));
        assert!(!filter.would_enable("hyper", &Level::INFO));
    }
}
