//! Connections: how many there are at once, and how long one of them may keep us waiting. Whoever reaches a listener can open
//! them, before any token is asked for: those that say nothing must end by themselves, and leave room for others.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::timeout::RequestBodyDeadlineLayer;

/// How many connections a listener has, and how long each may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// At once; what comes beyond waits to be accepted.
    most: usize,
    /// Until a request's head is there. Counts from the answer before it as well: so long a connection may say nothing.
    head: Duration,
    /// Until a request's body is there. One that is longer breaks off.
    body: Duration,
    /// After this a connection takes no further request.
    life: Duration,
    /// And so much later it is cut, also in the middle of an answer that nobody reads.
    last: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            most: 512,
            head: Duration::from_secs(30),
            body: Duration::from_secs(60),
            life: Duration::from_secs(300),
            last: Duration::from_secs(90),
        }
    }
}

/// Serves until `stop`; requests that are under way then are answered.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, limits: Limits) {
    let router = router.layer(RequestBodyDeadlineLayer::new(limits.body));
    let (room, open) = (Arc::new(Semaphore::new(limits.most)), TaskTracker::new());
    loop {
        let (stream, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let (router, stop) = (router.clone(), stop.clone());
        open.spawn(async move {
            answer(stream, router, stop, limits).await;
            drop(place);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// The next one, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = room.clone().acquire_owned().await.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // It was gone before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::error!(%error, "a connection over HTTP cannot be accepted");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Answers what comes over one connection, until it ends or its time is over.
async fn answer(stream: TcpStream, router: Router, stop: CancellationToken, limits: Limits) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = sleep(limits.life) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(limits.last, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection over HTTP broke off");
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Long enough for whatever must happen.
    const LONG: Duration = Duration::from_secs(60);
    const NEVER: Duration = Duration::from_secs(100_000);

    struct Served {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        running: tokio::task::JoinHandle<()>,
    }

    impl Served {
        async fn new(limits: Limits) -> Self {
            let router = Router::new()
                .route("/", get(|| async { "there" }))
                .route("/body", post(|body: Bytes| async move { body.len().to_string() }));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
            let running = tokio::spawn(serve(listener, router, stop.clone(), limits));
            Self { address, stop, running }
        }

        async fn says(&self, text: &str) -> TcpStream {
            let mut line = TcpStream::connect(self.address).await.unwrap();
            line.write_all(text.as_bytes()).await.unwrap();
            line
        }
    }

    /// All that comes until the connection ends.
    async fn heard(line: &mut TcpStream) -> String {
        let mut all = Vec::new();
        timeout(LONG, line.read_to_end(&mut all)).await.expect("the connection to end").ok();
        String::from_utf8(all).unwrap()
    }

    const ONE: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    const BODY: &str = "POST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nx";

    #[tokio::test]
    async fn those_that_say_nothing_end_and_leave_room() {
        let head = Duration::from_millis(200);
        let served = Served::new(Limits { most: 2, head, body: NEVER, life: NEVER, last: NEVER }).await;
        let mut silent = [served.says("").await, served.says("GET / HTTP/1.1\r\nhost").await];
        let mut third = served.says(ONE).await;
        assert!(heard(&mut third).await.ends_with("there"));
        for line in &mut silent {
            assert!(!heard(line).await.contains("there"));
        }
        // After an answer, too.
        let mut idle = served.says("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert!(heard(&mut idle).await.ends_with("there"));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let body = Duration::from_millis(200);
        let served = Served::new(Limits { most: 1, head: LONG, body, life: NEVER, last: NEVER }).await;
        let mut line = served.says(BODY).await;
        let mut answer = [0; 12];
        timeout(LONG, line.read_exact(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        drop(line);
        assert!(heard(&mut served.says(ONE).await).await.ends_with("there"));
    }

    #[tokio::test]
    async fn none_lives_for_ever() {
        let soon = Duration::from_millis(200);
        let served = Served::new(Limits { most: 1, head: NEVER, body: NEVER, life: soon, last: soon }).await;
        let mut line = served.says(BODY).await;
        assert_eq!(heard(&mut line).await, "");
        assert!(heard(&mut served.says(ONE).await).await.ends_with("there"));
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_at_the_end() {
        let served = Served::new(Limits { most: 9, head: NEVER, body: NEVER, life: NEVER, last: NEVER }).await;
        let mut idle = served.says("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        let mut line = served.says(&format!("{BODY}234")).await;
        // It is being read once another one, which came later, was answered.
        assert!(heard(&mut served.says(ONE).await).await.ends_with("there"));
        served.stop.cancel();
        heard(&mut idle).await;
        line.write_all(b"567890").await.unwrap();
        assert!(heard(&mut line).await.ends_with("10"));
        timeout(LONG, served.running).await.expect("it to end").unwrap();
    }
}
