//! What stands between one process and Vault: one answer in a hundred is lost after Vault gave it, one request in a
//! hundred is answered 503 and never reaches Vault. Each request is passed on with the name of the process that sent it.

use std::sync::{Arc, Mutex};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::dice::Dice;

/// The header by which Vault's audit log tells the processes apart.
pub const WHO: &str = "x-chaos";

/// What the proxies did.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
pub struct Done {
    pub passed: usize,
    pub cut: usize,
    pub refused: usize,
}

struct Shared {
    upstream: String,
    http: reqwest::Client,
    done: Mutex<Done>,
    /// The faults of the next hundred requests.
    plan: Mutex<(Dice, Vec<Fault>)>,
    /// Whose request for an effect came last, and how many there were.
    effects: watch::Sender<(usize, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    CutReply,
    Refuse,
}

/// All proxies.
#[derive(Clone)]
pub struct Proxies(Arc<Shared>);

impl Proxies {
    pub fn to(upstream: &str, dice: Dice) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self(Arc::new(Shared {
            upstream: upstream.to_owned(),
            http,
            done: Mutex::default(),
            plan: Mutex::new((dice, Vec::new())),
            effects: watch::Sender::new((0, String::new())),
        }))
    }

    /// One for `who`; its URL.
    pub async fn listen(&self, who: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (shared, who) = (self.0.clone(), who.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, who) = (shared.clone(), who.clone());
                tokio::spawn(async move { serve(&shared, &who, client).await });
            }
        });
        url
    }

    pub fn done(&self) -> Done {
        *self.0.done.lock().unwrap()
    }

    /// Until `who` asks for an effect.
    pub async fn effect_by(&self, who: &str) {
        let mut effects = self.0.effects.subscribe();
        effects.mark_unchanged();
        while effects.changed().await.is_ok() {
            if effects.borrow_and_update().1 == who {
                return;
            }
        }
    }
}

impl Shared {
    /// Exactly one of each in a hundred, at places that nobody knows.
    fn next(&self) -> Fault {
        let mut plan = self.plan.lock().unwrap();
        let (dice, faults) = &mut *plan;
        if faults.is_empty() {
            faults.resize(100, Fault::None);
            let cut = dice.below(100);
            faults[cut] = Fault::CutReply;
            faults[(cut + 1 + dice.below(99)) % 100] = Fault::Refuse;
        }
        faults.pop().unwrap()
    }
}

struct Request {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

async fn serve(shared: &Shared, who: &str, client: TcpStream) {
    let mut client = BufReader::new(client);
    while let Some(request) = read(&mut client).await {
        let fault = shared.next();
        if fault == Fault::Refuse {
            shared.done.lock().unwrap().refused += 1;
            let body = br#"{"errors":["Vault is sealed"]}"#;
            if answer(&mut client, 503, &HeaderMap::new(), body).await.is_none() {
                return;
            }
            continue;
        }
        if request.method != "GET" && is_effect(&request.path) {
            shared.effects.send_modify(|(count, last)| {
                *count += 1;
                who.clone_into(last);
            });
        }
        let Some((status, headers, body)) = pass(shared, who, request).await else { return };
        if fault == Fault::CutReply {
            shared.done.lock().unwrap().cut += 1;
            return;
        }
        shared.done.lock().unwrap().passed += 1;
        if answer(&mut client, status, &headers, &body).await.is_none() {
            return;
        }
    }
}

/// Whether a path of Vault's API ends a credential, or changes what is stored, if it is not only read.
pub fn is_effect(path: &str) -> bool {
    let path = path.trim_start_matches("/v1/");
    ["sys/leases/revoke", "auth/token/revoke", "kv/"].iter().any(|effects| path.starts_with(effects))
}

async fn read(client: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    client.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    let length = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.ok()?;
    for name in ["host", "connection", "content-length"] {
        headers.remove(name);
    }
    Some(Request { method, path, headers, body })
}

async fn pass(shared: &Shared, who: &str, request: Request) -> Option<(u16, HeaderMap, Vec<u8>)> {
    let method = reqwest::Method::from_bytes(request.method.as_bytes()).ok()?;
    let sent = shared
        .http
        .request(method, format!("{}{}", shared.upstream, request.path))
        .headers(request.headers)
        .header(WHO, who)
        .body(request.body)
        .send()
        .await
        .ok()?;
    let (status, headers) = (sent.status().as_u16(), sent.headers().clone());
    Some((status, headers, sent.bytes().await.ok()?.to_vec()))
}

async fn answer(client: &mut BufReader<TcpStream>, status: u16, headers: &HeaderMap, body: &[u8]) -> Option<()> {
    let mut head = format!("HTTP/1.1 {status} as-it-came\r\n");
    for (name, value) in headers {
        if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().ok()?));
        }
    }
    // An answer without content has no length either.
    if status != 204 {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    client.write_all(head.as_bytes()).await.ok()?;
    if status != 204 {
        client.write_all(body).await.ok()?;
    }
    client.flush().await.ok()
}
