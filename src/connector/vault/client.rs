//! One request, one answer: vaultrs's client and middleware, with endpoints of our own.
//!
//! vaultrs prints its token in `{:?}`, logs what it cannot parse, and reads the environment for whatever is not set:
//! nothing here is printed, answers are parsed by [`super::answers`], and every setting is set.

use std::time::Duration;

use rustify::client::Client as _;
use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use vaultrs::client::{Client as _, VaultClient, VaultClientSettings};

use super::answers::{Lost, Reply};
use super::{ConnectError, VaultSettings};
use crate::connector::wiped::wipe;

/// Any request: the paths that vaultrs lacks, without its logging parser.
#[derive(Clone)]
pub struct Raw {
    /// The method.
    pub method: RequestMethod,
    /// The path below `v1/`.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// The body. Its memory is zeroed: it may hold a secret.
    pub body: Option<Value>,
}

impl Raw {
    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::GET, path: path.into(), query: None, body: None }
    }

    /// A list.
    pub fn list(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::LIST, path: path.into(), query: None, body: None }
    }

    /// A deletion.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::DELETE, path: path.into(), query: None, body: None }
    }

    /// An update.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: RequestMethod::POST, path: path.into(), query: None, body: Some(body) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.body.iter_mut().for_each(wipe);
    }
}

impl Endpoint for Raw {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn query(&self) -> Result<Option<String>, ClientError> {
        Ok(self.query.clone())
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_string().into_bytes()))
    }
}

/// Where requests go: the connection pool, without a token.
#[derive(Clone)]
pub struct Wire {
    http: reqwest::Client,
    address: reqwest::Url,
    namespace: Option<String>,
    timeout: Duration,
}

impl Wire {
    /// Checks the settings and makes the pool; nothing is sent.
    ///
    /// # Errors
    /// [`ConnectError::Settings`].
    pub fn new(settings: &VaultSettings) -> Result<Self, ConnectError> {
        let bad = |what: &str| ConnectError::Settings(what.to_owned());
        let address = reqwest::Url::parse(&settings.address).map_err(|_| bad("`address` is not a URL"))?;
        if !matches!(address.path(), "" | "/") || address.query().is_some() || !address.username().is_empty() {
            return Err(bad("`address` is scheme, host and port, without path or user"));
        }
        let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let timeout = Duration::from_millis(settings.timeout_ms);
        let mut http = reqwest::ClientBuilder::new()
            .tls_backend_rustls()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            // Less than the whole: that nothing was sent must be known before the call's own time is over.
            .connect_timeout(timeout / 2);
        http = match (address.scheme(), &settings.ca_file) {
            ("http", _) if !loopback => return Err(bad("plain http reaches only a Vault on loopback: use https")),
            ("http", _) => http.tls_certs_only(Vec::new()).no_proxy(),
            ("https", Some(path)) => {
                let pem = std::fs::read(path).map_err(|e| bad(&format!("`ca_file` cannot be read: {e}")))?;
                let certs = reqwest::Certificate::from_pem_bundle(&pem)
                    .map_err(|_| bad("`ca_file` holds no PEM certificates"))?;
                if certs.is_empty() {
                    return Err(bad("`ca_file` holds no PEM certificates"));
                }
                http.tls_certs_only(certs)
            }
            ("https", None) => http,
            _ => return Err(bad("`address` starts with https:// or http://")),
        };
        if let Some(namespace) = &settings.namespace
            && !namespace.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(bad("`namespace` has characters that no namespace has"));
        }
        let http = http.build().map_err(|_| bad("the TLS settings cannot be used"))?;
        Ok(Self { http, address, namespace: settings.namespace.clone(), timeout })
    }

    /// A client that speaks with `token`.
    pub fn with_token(&self, token: &SecretString) -> VaultClient {
        let settings = VaultClientSettings {
            address: self.address.clone(),
            ca_certs: Vec::new(),
            identity: None,
            timeout: Some(self.timeout),
            token: token.expose_secret().to_owned(),
            verify: true,
            version: 1,
            wrapping: false,
            namespace: self.namespace.clone(),
            proxy: None,
        };
        VaultClient {
            http: rustify::Client::new(self.address.as_str(), self.http.clone()),
            middle: vaultrs::api::EndpointMiddleware {
                token: settings.token.clone(),
                version: "v1".into(),
                wrap: None,
                namespace: settings.namespace.clone(),
            },
            settings,
        }
    }
}

/// Sends `raw` and returns the answer, whatever its status.
///
/// # Errors
/// [`Lost`] when no whole answer came.
pub async fn send(client: &VaultClient, raw: Raw) -> Result<Reply, Lost> {
    let base = client.http().base();
    let mut request = raw.with_middleware(client.middle()).request(base).map_err(|_| Lost::NotSent)?;
    // So that no layer below prints the token, at whatever level it logs.
    request.headers_mut().values_mut().for_each(|value| value.set_sensitive(true));
    let response = client.http().send(request).await.map_err(|error| match error {
        ClientError::RequestError { source, .. } => match source.downcast_ref::<reqwest::Error>() {
            Some(e) if e.is_connect() || e.is_builder() => Lost::NotSent,
            _ => Lost::Cut,
        },
        ClientError::ReqwestBuildError { .. } => Lost::NotSent,
        _ => Lost::Cut,
    })?;
    let retry_after_ms = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse::<i64>().ok())
        .map(|seconds| seconds.clamp(0, 3600) * 1000);
    Ok(Reply { status: response.status().as_u16(), retry_after_ms, body: response.into_body() })
}

/// Reads a file that holds one secret.
///
/// # Errors
/// [`ConnectError::Settings`] naming the setting, never the content.
pub async fn secret_file(what: &str, path: &std::path::Path) -> Result<SecretString, ConnectError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|e| ConnectError::Settings(format!("`{what}` {} cannot be read: {}", path.display(), e.kind())))?;
    header_safe(what, &text)
}

/// A token goes into a header: what cannot is refused here, where the text is not printed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub fn header_safe(what: &str, text: &str) -> Result<SecretString, ConnectError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ConnectError::Settings(format!("`{what}` is empty or holds more than one token")));
    }
    Ok(SecretString::from(text.to_owned()))
}
