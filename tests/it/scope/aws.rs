//! Users of IAM, on moto.

mod stories;

use std::sync::Arc;

use aws_sdk_iam::Client;
use curfew::clock::System;
use curfew::connector::Connector;
use curfew::connector::aws::{AwsSettings, scope};
use curfew::credential::{CredentialId, Kind};
use curfew::scope::{Permission, permissions};
use serde_json::{Value, json};

use super::{Identity, Way, every_fault, every_kill};
use crate::aws::{Key, Moto};
use crate::store::Store;
use crate::world::unique;

/// What stays: it may look at itself. As people write it, and given back so.
const WORK: &str = "{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n    {\"Sid\": \"Its own\", \"Effect\": \"Allow\",\n     \
    \"Action\": [\"iam:GetUser\", \"iam:ListUsers\"], \"Resource\": \"*\"}]}\n";
/// What goes.
const EXTRA: &str = " {\"Version\":\"2012-10-17\",\r\n\t\"Statement\": {\"Sid\" : \"Extra%20é\", \"Effect\":\"Allow\",\n\n\
    \"Action\":\"s3:Put*\", \"Resource\":[\"arn:aws:s3:::a/*\",\"arn:aws:s3:::b+c\"]}}  ";

fn allows(action: &str) -> String {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [action], "Resource": "*"}]})
        .to_string()
}

/// A user with policies of its own, managed ones and groups; another one with the same.
pub struct Bot {
    root: Client,
    own: Client,
    login: Key,
    name: String,
    other: String,
    goes: String,
    group: String,
    stays: String,
    kept_group: String,
    credential: CredentialId,
    connector: Arc<dyn Connector>,
}

/// How who reduces logs in.
async fn reducer(moto: &Moto) -> AwsSettings {
    let key = moto.login(&format!("curfew/{}", unique("reducer")), "reduce.json").await;
    AwsSettings { users: Vec::new(), ..moto.settings_of(&key) }
}

impl Bot {
    pub async fn new(moto: &Moto, settings: &AwsSettings) -> Self {
        let root = moto.root.clone();
        let (victim, other) = (moto.victim().await, moto.victim().await);
        let policy = async |action: &str| {
            let made = root.create_policy().policy_name(unique("policy")).policy_document(allows(action)).send().await;
            made.unwrap().policy.unwrap().arn.unwrap()
        };
        let group = async |action: &str| {
            let name = unique("group");
            root.create_group().group_name(&name).send().await.unwrap();
            let may = root.put_group_policy().group_name(&name).policy_name("may").policy_document(allows(action));
            may.send().await.unwrap();
            name
        };
        let (goes, stays) = (policy("ec2:*").await, policy("s3:*").await);
        let (leaves, kept_group) = (group("iam:ListGroups").await, group("iam:ListRoles").await);
        for user in [victim.name(), other.name()] {
            for arn in [&goes, &stays] {
                root.attach_user_policy().user_name(user).policy_arn(arn).send().await.unwrap();
            }
            for group in [&leaves, &kept_group] {
                root.add_user_to_group().user_name(user).group_name(group).send().await.unwrap();
            }
            for (name, document) in [("work", WORK), ("extra", EXTRA)] {
                let put = root.put_user_policy().user_name(user).policy_name(name).policy_document(document);
                put.send().await.unwrap();
            }
        }
        let connector = scope::connect("aws", settings, System::shared()).await.unwrap();
        let credential = CredentialId::new(Kind::AwsUser, "aws", &victim.full).unwrap();
        Self {
            own: moto.client(&victim.key),
            login: victim.key.clone(),
            name: victim.name().to_owned(),
            other: other.name().to_owned(),
            goes,
            group: leaves,
            stays,
            kept_group,
            root,
            credential,
            connector,
        }
    }

    async fn alone() -> (Moto, Self) {
        let moto = Moto::start().await;
        let settings = reducer(&moto).await;
        let bot = Self::new(&moto, &settings).await;
        (moto, bot)
    }

    /// By one of its keys.
    fn by_key(&self) -> CredentialId {
        let id = format!("{}/{}", self.credential.id(), self.login.id);
        CredentialId::new(Kind::AwsAccessKey, "aws", &id).unwrap()
    }

    async fn of(&self, user: &str) -> String {
        let iam = &self.root;
        let attached = iam.list_attached_user_policies().user_name(user).max_items(1_000).send().await.unwrap();
        let mut managed: Vec<&str> = attached.attached_policies().iter().filter_map(|one| one.policy_arn()).collect();
        managed.sort_unstable();
        let groups = iam.list_groups_for_user().user_name(user).send().await.unwrap();
        let mut groups: Vec<&str> = groups.groups().iter().map(|group| group.group_name()).collect();
        groups.sort_unstable();
        let names = iam.list_user_policies().user_name(user).send().await.unwrap();
        let mut inline = serde_json::Map::new();
        for name in names.policy_names() {
            let found = iam.get_user_policy().user_name(user).policy_name(name).send().await.unwrap();
            let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().unwrap();
            inline.insert(name.clone(), json!(text));
        }
        json!({"managed": managed, "groups": groups, "inline": inline}).to_string()
    }

    async fn put(&self, name: &str, document: &str) {
        let put = self.root.put_user_policy().user_name(&self.name).policy_name(name).policy_document(document);
        put.send().await.unwrap();
    }

    /// What our policy of this name denies.
    async fn denied(&self, policy: &str) -> Option<Value> {
        let state: Value = serde_json::from_str(&self.state().await).unwrap();
        let text = state["inline"][policy].as_str()?;
        Some(serde_json::from_str::<Value>(text).unwrap()["Statement"][0]["Action"].clone())
    }

    async fn overlay(&self) -> Option<Value> {
        self.denied("curfew-reduced").await
    }
}

impl Identity for Bot {
    fn credential(&self) -> &CredentialId {
        &self.credential
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.connector.clone()
    }

    fn takes(&self) -> Vec<Permission> {
        let (goes, group) = (format!("managed:{}", self.goes), format!("group:{}", self.group));
        permissions([&goes, &group, "inline:extra", "action:s3:DeleteObject", "action:iam:Delete*"]).unwrap()
    }

    async fn state(&self) -> String {
        self.of(&self.name).await
    }

    fn without(&self, before: &str) -> String {
        let mut state: Value = serde_json::from_str(before).unwrap();
        state["managed"].as_array_mut().unwrap().retain(|arn| *arn != *self.goes);
        state["groups"].as_array_mut().unwrap().retain(|name| *name != *self.group);
        let inline = state["inline"].as_object_mut().unwrap();
        inline.remove("extra");
        let denied = "{\"Statement\":[{\"Action\":[\"iam:Delete*\",\"s3:DeleteObject\"],\"Effect\":\"Deny\",\"Resource\":\"*\",\
            \"Sid\":\"CurfewReduced\"}],\"Version\":\"2012-10-17\"}";
        inline.insert("curfew-reduced".to_owned(), json!(denied));
        state.to_string()
    }

    async fn bystander(&self) -> String {
        self.of(&self.other).await
    }

    async fn assert_works(&self, what: &str) {
        let found = self.own.get_user().user_name(&self.name).send().await;
        assert!(found.is_ok(), "{what}: {found:?}");
        assert!(self.own.list_roles().send().await.is_ok(), "{what}: by the group that stays");
    }

    fn secret(&self) -> Option<&str> {
        Some(&self.login.secret)
    }

    async fn also_otherwise(&self) {
        let call = self.root.attach_group_policy().group_name(&self.kept_group).policy_arn(&self.goes);
        call.send().await.unwrap();
    }
}

over_both! {
    what_is_taken_from_a_user_survives_every_kill,
    what_is_taken_from_a_user_survives_every_fault,
    giving_a_user_back_what_it_still_has_otherwise_survives_every_kill,
    giving_a_user_back_what_was_taken_survives_every_kill,
    giving_a_user_back_what_was_taken_survives_every_fault,
}

async fn kills(store: Store, way: Way) {
    let moto = Moto::start().await;
    let settings = reducer(&moto).await;
    every_kill(store, way, async || Bot::new(&moto, &settings).await).await;
}

async fn faults(store: Store, way: Way) {
    let moto = Moto::start().await;
    let settings = reducer(&moto).await;
    every_fault(store, way, async || Bot::new(&moto, &settings).await).await;
}

async fn what_is_taken_from_a_user_survives_every_kill(store: Store) {
    kills(store, Way::Taken).await;
}

async fn what_is_taken_from_a_user_survives_every_fault(store: Store) {
    faults(store, Way::Taken).await;
}

async fn giving_a_user_back_what_it_still_has_otherwise_survives_every_kill(store: Store) {
    kills(store, Way::Undone).await;
}

async fn giving_a_user_back_what_was_taken_survives_every_kill(store: Store) {
    kills(store, Way::GivenBack).await;
}

async fn giving_a_user_back_what_was_taken_survives_every_fault(store: Store) {
    faults(store, Way::GivenBack).await;
}
