//! What the tests share: the servers' addresses, unique names, and waiting on conditions.
#![allow(dead_code)]

use std::future::Future;
use std::time::{Duration, Instant};

/// A setting of the servers that `tests/servers/servers` started.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by `make test`"))
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// The repository. Cargo says it anew at each run: a target folder that several clones share keeps what was compiled into
/// a test binary in another of them.
pub fn repository() -> &'static std::path::Path {
    static FOUND: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), Into::into)
    });
    &FOUND
}

/// What `tests/servers/servers` installs beside the servers: in which folder it is.
pub fn installed(part: &str) -> std::path::PathBuf {
    let servers = |verb| {
        let script = repository().join("tests/servers/servers");
        let output = std::process::Command::new(script).args([verb, part]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    servers("install");
    servers("where").trim().into()
}

/// Waits until `condition` gives something, or fails with `what` after a minute.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, condition: impl FnMut() -> F) -> T {
    until_within(Duration::from_secs(60), what, condition).await
}

/// The same, for what may take longer.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {} s for: {what}", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What stands between Curfew and a server: passes, refuses, swallows answers, delays.
pub struct Proxy {
    /// `127.0.0.1:<port>`.
    pub address: String,
    mode: std::sync::Arc<std::sync::atomic::AtomicU8>,
    open: std::sync::Arc<tokio::sync::Notify>,
    mark: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Proxy {
    /// In front of `upstream`, passing.
    pub async fn to(upstream: &str) -> Self {
        use std::sync::atomic::Ordering::SeqCst;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mode = std::sync::Arc::new(std::sync::atomic::AtomicU8::new(0));
        let open = std::sync::Arc::new(tokio::sync::Notify::new());
        let mark = std::sync::Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
        let (upstream, state, cut, wanted) = (upstream.to_owned(), mode.clone(), open.clone(), mark.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (upstream, state, cut, wanted) = (upstream.clone(), state.clone(), cut.clone(), wanted.clone());
                tokio::spawn(async move {
                    if state.load(SeqCst) == 1 {
                        return;
                    }
                    let Ok(far) = tokio::net::TcpStream::connect(&upstream).await else { return };
                    let (mut near_in, mut near_out) = near.into_split();
                    let (mut far_in, mut far_out) = far.into_split();
                    let there = async {
                        use tokio::io::{AsyncReadExt, AsyncWriteExt};
                        let mut buffer = vec![0; 16 * 1024];
                        loop {
                            let Ok(n) = near_in.read(&mut buffer).await else { return };
                            let is_marked = state.load(SeqCst) == 4 && {
                                let mark = wanted.lock().unwrap();
                                buffer[..n].windows(mark.len()).any(|piece| piece == mark.as_slice())
                            };
                            if is_marked {
                                state.store(2, SeqCst);
                            }
                            if n == 0 || far_out.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                        }
                    };
                    let back = async {
                        use tokio::io::{AsyncReadExt, AsyncWriteExt};
                        let mut buffer = vec![0; 16 * 1024];
                        loop {
                            let Ok(n) = far_in.read(&mut buffer).await else { return };
                            match state.load(SeqCst) {
                                // The server has answered, so it has done it; nobody hears of it.
                                2 => return,
                                3 => tokio::time::sleep(Duration::from_secs(5)).await,
                                _ => {}
                            }
                            if n == 0 || near_out.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! { () = there => {}, () = back => {}, () = cut.notified() => {} }
                });
            }
        });
        Self { address, mode, open, mark }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, std::sync::atomic::Ordering::SeqCst);
        if mode == 1 {
            self.open.notify_waiters();
        }
    }

    /// Passes everything.
    pub fn on(&self) {
        self.set(0);
    }

    /// Breaks open connections and closes new ones at once.
    pub fn off(&self) {
        self.set(1);
    }

    /// Requests reach the server; the connection breaks instead of the answer.
    pub fn cut_replies(&self) {
        self.set(2);
    }

    /// Passes everything, until a request with these bytes in it: it reaches the server, and from its answer on
    /// connections break instead of answers.
    pub fn cut_after(&self, mark: &[u8]) {
        *self.mark.lock().unwrap() = mark.to_owned();
        self.set(4);
    }

    /// Each piece of an answer comes five seconds late.
    pub fn delay(&self) {
        self.set(3);
    }
}
