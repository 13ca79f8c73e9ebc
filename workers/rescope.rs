//! What operators order about what an identity may do: take, give back, keep.

use curfew::config::Config;
use curfew::config::file::Millis;
use curfew::connector::plan;
use curfew::credential::CredentialId;
use curfew::ops::Request;
use curfew::scope;

use crate::args::{Keep, Reduce, Rollback};
use crate::stop::{recorded, say};
use crate::{Failed, link};

/// A span of time, from the command line.
fn span(text: &str) -> Result<i64, Failed> {
    Millis::parse(text).map(|span| span.0).map_err(|why| Failed::Usage(why.to_owned()))
}

/// `curfew reduce`
pub async fn reduce(config: &Config, what: Reduce, json_wanted: bool) -> Result<(), Failed> {
    let credential = CredentialId::parse(&what.credential).map_err(|error| Failed::Data(error.to_string()))?;
    if plan::scope_connector(credential.kind()).is_none() {
        let kind = credential.kind_name();
        let why = format!(
            "permissions are taken from a postgres-role, a vault-approle, an aws-user or an aws-access-key, not from a {kind}"
        );
        return Err(Failed::Data(why));
    }
    let permissions = scope::permissions(&what.take).map_err(|error| Failed::Usage(format!("--take: {error}")))?;
    let notice_ms = what.notice.as_deref().map(span).transpose()?.unwrap_or(0);
    let (tenant, by, reason) = (what.tenant, what.who.by, what.reason);
    let request = Request::Reduce { credential, permissions, notice_ms, tenant, by, reason };
    recorded(json_wanted, &link::ask(config, request).await?);
    Ok(())
}

/// `curfew rollback`
pub async fn rollback(config: &Config, what: Rollback, json_wanted: bool) -> Result<(), Failed> {
    let request = Request::Rollback { id: what.one.id, by: what.who.by, reason: what.reason };
    let value = link::ask(config, request).await?;
    recorded(json_wanted, &value);
    if !json_wanted && value["left"].as_u64().is_some_and(|left| left > 0) {
        println!("its fence comes off first: give back what else it took by the same command when that case is closed");
    }
    Ok(())
}

/// `curfew keep`
pub async fn keep(config: &Config, what: Keep, json_wanted: bool) -> Result<(), Failed> {
    let for_ms = span(&what.span)?;
    let request = Request::Keep { id: what.one.id, for_ms, by: what.who.by, reason: what.reason };
    let value = link::ask(config, request).await?;
    say(json_wanted, &value, &format!("kept as it is for {}", what.span));
    Ok(())
}
