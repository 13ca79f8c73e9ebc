//! The operators' socket: a line of JSON in, a line of JSON out, for the owner of the process alone.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::operator::Operator;
use super::{Refused, RefusedKind, Reply, Request};

/// The longest request.
const MAX_REQUEST: u64 = 64 * 1024;
/// A connection that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(60);
/// What fits into a socket's address.
const MAX_PATH: usize = 107;

/// A socket that is listened on; its file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Server {
    /// Makes the socket, readable and writable for its owner only. A socket that nobody listens on is replaced.
    ///
    /// # Errors
    /// Another process listens there, the path is too long, or the folder cannot be written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let temporary = path.with_extension(format!("{}", std::process::id()));
        if temporary.as_os_str().len() > MAX_PATH {
            let path = path.display();
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{path} is too long for a socket: set `socket`"),
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(ErrorKind::AddrInUse, format!("another process listens on {}", path.display())));
        }
        if let Err(error) = fs::remove_file(&temporary)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&temporary)?.uid();
        fs::rename(&temporary, path)?;
        Ok(Self { listener, path: path.to_owned(), owner })
    }

    /// Answers until cancelled.
    pub async fn run(self, operator: Operator, cancel: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                // Who connected before the permissions were set is asked for their name, too.
                Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| [0, self.owner].contains(&peer.uid())) => {
                    let (operator, cancel) = (operator.clone(), cancel.clone());
                    connections.spawn(async move {
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            spoken = converse(stream, &operator) => {
                                if let Err(error) = spoken {
                                    tracing::debug!(%error, "an operator's connection broke");
                                }
                            }
                        }
                    });
                }
                Ok(_) => tracing::warn!("somebody else tried the operators' socket"),
                Err(error) => {
                    tracing::warn!(%error, "the operators' socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the operators' socket was gone");
        }
    }
}

async fn converse(stream: UnixStream, operator: &Operator) -> io::Result<()> {
    let (reads, mut writes) = stream.into_split();
    let mut reads = BufReader::new(reads);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reads).take(MAX_REQUEST);
        let read = limited.read_until(b'\n', &mut line);
        match tokio::time::timeout(SILENCE, read).await {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => {}
        }
        // Nothing of it is quoted: it may hold anything.
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => operator.answer(request).await,
            Err(_) => Reply::Refused(Refused::new(RefusedKind::Invalid, "this is no request that this version knows")),
        };
        let mut bytes = serde_json::to_vec(&reply)?;
        bytes.push(b'\n');
        writes.write_all(&bytes).await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
    }
}
