//! A command's side of the operators' socket.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Refused, Reply, Request};

/// How long a process may take to accept.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may take to answer; a freeze must be heard of within a second and lists nothing, the rest can be long lists.
const ANSWER: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process listens.
    #[error("no curfew process listens on the socket")]
    NotRunning,
    /// It listens, but does not answer.
    #[error("the curfew process does not answer on its socket")]
    Silent,
    /// It answered, and not with yes.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The connection broke.
    #[error("the connection to the curfew process broke")]
    Broken(#[source] io::Error),
}

/// Asks the process that listens on `socket`.
///
/// # Errors
/// It does not run, does not answer, or refuses.
pub async fn ask(socket: &Path, request: &Request) -> Result<Value, Error> {
    let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(socket)).await {
        Err(_) => return Err(Error::Silent),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Err(Error::NotRunning);
        }
        Ok(Err(error)) => return Err(Error::Broken(error)),
        Ok(Ok(stream)) => stream,
    };
    let patience = if matches!(request, Request::Freeze { .. }) { CONNECT } else { ANSWER };
    tokio::time::timeout(patience, exchange(stream, request)).await.map_err(|_| Error::Silent)?
}

async fn exchange(mut stream: UnixStream, request: &Request) -> Result<Value, Error> {
    let mut line = serde_json::to_vec(request).map_err(|error| Error::Broken(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(Error::Broken)?;
    let mut answer = String::new();
    let read = BufReader::new(stream).read_line(&mut answer).await.map_err(Error::Broken)?;
    if read == 0 {
        return Err(Error::Broken(ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&answer).map_err(|error| Error::Broken(error.into()))? {
        Reply::Ok(value) => Ok(value),
        Reply::Refused(refused) => Err(refused.into()),
    }
}
