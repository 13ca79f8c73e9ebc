//! Objects as `kube` wants them: with a sort, and with no more in memory than is read.

use std::borrow::Cow;

use kube::api::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::de::{Deserialize, Deserializer};

use crate::event::kubernetes::{Kept, Sort};

/// An object of either sort.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// What was kept of it.
    pub(super) kept: Kept,
    /// What `kube` asks for.
    meta: ObjectMeta,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kept = Kept::deserialize(deserializer)?;
        let meta = ObjectMeta {
            name: Some(kept.name.clone()),
            resource_version: Some(kept.version.clone()),
            ..ObjectMeta::default()
        };
        Ok(Self { kept, meta })
    }
}

impl kube::Resource for Object {
    type DynamicType = Sort;
    type Scope = DynamicResourceScope;

    fn kind(sort: &Sort) -> Cow<'_, str> {
        sort.kind().into()
    }
    fn group(sort: &Sort) -> Cow<'_, str> {
        match sort {
            Sort::Job => "batch".into(),
            Sort::Pod => "".into(),
        }
    }
    fn version(_: &Sort) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural(sort: &Sort) -> Cow<'_, str> {
        plural(*sort).into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// As it stands in paths.
pub(super) const fn plural(sort: Sort) -> &'static str {
    match sort {
        Sort::Job => "jobs",
        Sort::Pod => "pods",
    }
}
