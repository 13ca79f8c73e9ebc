//! The CloudEvents envelope, in both modes of the Kafka binding.
//!
//! A `content-type` that begins with `application/cloudevents` means structured: the record's value is the event.
//! Everything else is binary: attributes in `ce_` headers, the value is `data` as it is. Batches are refused.

use std::borrow::Cow;

use super::tree::{self, Node};
use super::{Delivery, Fault, Limits, RejectReason, Type, time};

/// The longest `id`, `source`, `subject` and the like, in bytes: the same as for credential ids.
pub(super) const MAX_TEXT_BYTES: usize = crate::credential::MAX_ID_BYTES;
/// More `ce_` headers than any producer has; bounds the search for doubled ones.
const MAX_HEADERS: usize = 64;
/// Only Curfew speaks for what lies below.
const OWN_SOURCE: &str = "/curfew";

/// The attributes that Curfew reads, checked.
pub(super) struct Envelope<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    /// The whole type, with its version.
    pub(super) type_name: Cow<'a, str>,
    pub(super) kind: Type,
    pub(super) subject: Option<Cow<'a, str>>,
    pub(super) traceparent: Option<String>,
    pub(super) data: Node<'a>,
}

/// Reads the envelope and parses the value, once.
pub(super) fn open<'a>(delivery: &'a Delivery, limits: &Limits) -> Result<Envelope<'a>, Fault> {
    let payload = delivery.payload.as_deref().ok_or(RejectReason::Tombstone)?;
    if payload.len() > limits.max_bytes {
        return Err(RejectReason::TooLarge.into());
    }
    let headers = Headers::read(delivery)?;
    let mut envelope = if is_structured(headers.content_type)? {
        structured(payload, limits)?
    } else {
        binary(&headers, payload, limits)?
    };
    if let Some(trace) = headers.traceparent {
        envelope.traceparent = Some(trace.to_owned());
    }
    Ok(envelope)
}

/// The headers that matter.
pub(super) struct Headers<'a> {
    pub(super) content_type: Option<&'a str>,
    traceparent: Option<&'a str>,
    /// Without `ce_`.
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Headers<'a> {
    /// Other headers may be whatever they like: they are nobody's business here.
    pub(super) fn read(delivery: &'a Delivery) -> Result<Self, Fault> {
        let mut headers = Self { content_type: None, traceparent: None, attributes: Vec::new() };
        for (name, value) in &delivery.headers {
            let text = || value.as_deref().and_then(|v| std::str::from_utf8(v).ok());
            if let Some(attribute) = name.strip_prefix("ce_") {
                let value = text().ok_or(RejectReason::BadHeader)?;
                let doubled = headers.attributes.iter().any(|(known, _)| *known == attribute);
                if doubled || headers.attributes.len() == MAX_HEADERS {
                    return Err(RejectReason::BadHeader.into());
                }
                headers.attributes.push((attribute, value));
            } else if name.eq_ignore_ascii_case("content-type") {
                if headers.content_type.replace(text().ok_or(RejectReason::BadHeader)?).is_some() {
                    return Err(RejectReason::BadHeader.into());
                }
            } else if name.eq_ignore_ascii_case("traceparent") && headers.traceparent.is_none() {
                // A trace is a courtesy: a broken one is dropped, never a reason to reject.
                headers.traceparent = text().filter(|t| is_traceparent(t));
            }
        }
        Ok(headers)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// Structured or binary. Of the structured formats only JSON is read, of the binary contents too.
pub(super) fn is_structured(content_type: Option<&str>) -> Result<bool, Fault> {
    const STRUCTURED: &str = "application/cloudevents";
    let Some(content_type) = content_type else { return Ok(false) };
    let media = content_type.split(';').next().unwrap_or_default().trim_ascii();
    if content_type.get(..STRUCTURED.len()).is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED)) {
        let format = &media[STRUCTURED.len().min(media.len())..];
        return if format.is_empty() || format.eq_ignore_ascii_case("+json") {
            Ok(true)
        } else {
            Err(RejectReason::BadEnvelope.into())
        };
    }
    if is_json(media) { Ok(false) } else { Err(Fault::at(RejectReason::BadEnvelope, "/datacontenttype")) }
}

fn is_json(media: &str) -> bool {
    let subtype = media.rsplit('/').next().unwrap_or_default();
    let ending = subtype.rsplit('+').next().unwrap_or_default();
    ending.eq_ignore_ascii_case("json")
}

fn parse<'a>(payload: &'a [u8], limits: &Limits) -> Result<Node<'a>, Fault> {
    let text = std::str::from_utf8(payload).map_err(|_| RejectReason::BadUtf8)?;
    Ok(tree::parse(text, limits.max_depth)?)
}

fn structured<'a>(payload: &'a [u8], limits: &Limits) -> Result<Envelope<'a>, Fault> {
    // One level for the envelope: the limit is about data, and means the same in both modes.
    let around = Limits { max_depth: limits.max_depth.saturating_add(1), ..*limits };
    let Node::Object(mut entries) = parse(payload, &around)? else {
        return Err(RejectReason::BadEnvelope.into());
    };
    if tree::get(&entries, "data_base64").is_some() {
        return Err(Fault::at(RejectReason::BadEnvelope, "/data_base64"));
    }
    let data = match entries.binary_search_by(|(name, _)| name.as_ref().cmp("data")) {
        Ok(place) => std::mem::replace(&mut entries[place].1, Node::Null),
        Err(_) => Node::Null,
    };
    let mut attribute = |name: &str| -> Result<Option<Cow<'a, str>>, ()> {
        let Ok(place) = entries.binary_search_by(|(known, _)| known.as_ref().cmp(name)) else { return Ok(None) };
        match std::mem::replace(&mut entries[place].1, Node::Null) {
            Node::Null => Ok(None),
            Node::Text(text) => Ok(Some(text)),
            _ => Err(()),
        }
    };
    let media = attribute("datacontenttype")
        .ok()
        .map(|media| media.is_none_or(|media| is_json(media.split(';').next().unwrap_or_default().trim_ascii())));
    if media != Some(true) {
        return Err(Fault::at(RejectReason::BadEnvelope, "/datacontenttype"));
    }
    check(attribute, || Ok(data))
}

fn binary<'a>(headers: &Headers<'a>, payload: &'a [u8], limits: &Limits) -> Result<Envelope<'a>, Fault> {
    check(|name| Ok(headers.get(name).map(Cow::Borrowed)), || parse(payload, limits))
}

/// Checks the attributes in the order in which they give meaning to each other, then parses the data where that has
/// not happened yet: what is of no known type is not worth parsing.
fn check<'a>(
    mut attribute: impl FnMut(&str) -> Result<Option<Cow<'a, str>>, ()>,
    data: impl FnOnce() -> Result<Node<'a>, Fault>,
) -> Result<Envelope<'a>, Fault> {
    let mut text = |name: &str, pointer: &'static str| match attribute(name) {
        Ok(text) if text.as_deref().is_none_or(is_text) => Ok(text),
        _ => Err(Fault::at(RejectReason::BadEnvelope, pointer)),
    };
    let missing = |pointer: &'static str| Fault::at(RejectReason::BadEnvelope, pointer);
    if text("specversion", "/specversion")?.as_deref() != Some("1.0") {
        return Err(missing("/specversion"));
    }
    let type_name = text("type", "/type")?.ok_or_else(|| missing("/type"))?;
    let kind = known(&type_name).map_err(|reason| Fault::at(reason, "/type"))?;
    let source = text("source", "/source")?.ok_or_else(|| missing("/source"))?;
    if is_own(&source) {
        // Else a forged event could take the id of a deadline before it passes, and make the real one a duplicate.
        return Err(Fault::at(RejectReason::Forbidden, "/source"));
    }
    let id = text("id", "/id")?.ok_or_else(|| missing("/id"))?;
    let subject = text("subject", "/subject")?;
    // The time is read by nobody; it is checked because a wrong one tells of a broken producer. An end is never
    // rejected for its times.
    if kind != Type::TaskEnded && text("time", "/time")?.is_some_and(|text| time::parse(&text).is_none()) {
        return Err(missing("/time"));
    }
    let traceparent = attribute("traceparent").ok().flatten().filter(|t| is_traceparent(t)).map(Cow::into_owned);
    Ok(Envelope { id, source, type_name, kind, subject, traceparent, data: data()? })
}

/// What a text must be to become a key or a name: CloudEvents allows no control characters in any.
pub(super) fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// `dev.curfew.<name>.v<N>`
fn known(type_name: &str) -> Result<Type, RejectReason> {
    const EMITTED: [&str; 4] = ["outcome", "credential.state", "credential.rotated", "rejected"];
    let rest = type_name.strip_prefix("dev.curfew.").ok_or(RejectReason::UnknownType)?;
    let (name, version) = rest.rsplit_once(".v").ok_or(RejectReason::UnknownType)?;
    if version.is_empty() || version.starts_with('0') || !version.bytes().all(|c| c.is_ascii_digit()) {
        return Err(RejectReason::UnknownType);
    }
    if EMITTED.contains(&name) || Type::OWN.iter().any(|own| own.as_str() == name) {
        return Err(RejectReason::Forbidden);
    }
    let kind = Type::INPUTS.into_iter().find(|kind| kind.as_str() == name).ok_or(RejectReason::UnknownType)?;
    if version == "1" { Ok(kind) } else { Err(RejectReason::UnknownVersion) }
}

fn is_own(source: &str) -> bool {
    source.strip_prefix(OWN_SOURCE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// W3C trace context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn is_traceparent(text: &str) -> bool {
    let b = text.as_bytes();
    let hex = |from: usize, to: usize| b[from..to].iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    b.len() == 55
        && b.starts_with(b"00-")
        && b[35] == b'-'
        && b[52] == b'-'
        && hex(3, 35)
        && hex(36, 52)
        && hex(53, 55)
        && b[3..35].iter().any(|c| *c != b'0')
        && b[36..52].iter().any(|c| *c != b'0')
}
