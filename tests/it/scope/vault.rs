//! AppRoles of a real Vault.

use std::sync::Arc;

use curfew::clock::System;
use curfew::connector::Connector;
use curfew::connector::vault::scope::VaultScope;
use curfew::connector::vault::{Auth, Vault, VaultSettings};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::scope::{Permission, permissions};
use serde_json::{Value, json};

use super::{Identity, Way, every_fault, every_kill};
use crate::admin::Admin;
use crate::store::Store;
use crate::world::unique;

/// An AppRole with three policies; another one with the same.
pub struct Role {
    admin: Admin,
    mount: String,
    name: String,
    policies: Vec<String>,
    credential: CredentialId,
    connector: Arc<dyn Connector>,
    secret_id: String,
    role_id: String,
}

impl Role {
    pub async fn new() -> Self {
        let admin = Admin::shared();
        let mount = admin.approle().await;
        let mut policies = Vec::new();
        for what in ["read", "write", "audit"] {
            let name = unique(&format!("etl-{what}"));
            let text = format!(
                "path \"auth/token/lookup-self\" {{ capabilities = [\"read\"] }}\npath \"sys/{what}\" {{ capabilities = [\"read\"] }}"
            );
            admin.done("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
            policies.push(name);
        }
        for role in ["ci", "other"] {
            let settings =
                json!({"token_policies": policies, "token_ttl": "20m", "token_max_ttl": "1h", "secret_id_ttl": "1h"});
            admin.done("POST", &format!("auth/{mount}/role/{role}"), settings).await;
        }
        let (_, secret_id) = admin.secret_id(&mount, json!({})).await;
        let (_, id) = admin.call("GET", &format!("auth/{mount}/role/ci/role-id"), Value::Null).await;
        let role_id = id["data"]["role_id"].as_str().unwrap().to_owned();
        let name = format!("{mount}/ci");
        let mounted = format!("auth/{mount}\"");
        let policy = admin
            .policy(
                "reduce",
                &[("auth/approle/role/etl", &format!("auth/{mount}/role/ci")), ("auth/approle\"", &mounted)],
            )
            .await;
        let token = admin.token(json!({"policies": [policy], "no_default_policy": true, "period": "1h"})).await.1;
        let mut settings = VaultSettings::new(&admin.address, Auth::Token(token.into()));
        settings.scopes = vec![name.clone()];
        let vault = Vault::open("test", &settings, Mode::Enforce, System::shared()).await.unwrap();
        let connector: Arc<dyn Connector> = Arc::new(VaultScope::new(vault));
        let credential = CredentialId::new(Kind::VaultApprole, "test", &name).unwrap();
        Self { admin, mount, name: "ci".to_owned(), policies, credential, connector, secret_id, role_id }
    }

    async fn of(&self, role: &str) -> String {
        let (status, answer) = self.admin.call("GET", &format!("auth/{}/role/{role}", self.mount), Value::Null).await;
        assert_eq!(status, 200);
        // Vault keeps the order in which a role was written, and sorts what is written to its list alone.
        let mut role = answer["data"].clone();
        let mut policies: Vec<String> = serde_json::from_value(role["token_policies"].take()).unwrap();
        policies.sort_unstable();
        role["token_policies"] = json!(policies);
        role.to_string()
    }

    /// The role is deleted.
    pub async fn forget(&self) {
        self.admin.done("DELETE", &format!("auth/{}/role/ci", self.mount), Value::Null).await;
    }

    /// The permissions for its policies, by their place.
    pub fn named(&self, places: &[usize]) -> Vec<Permission> {
        permissions(places.iter().map(|at| format!("policy:{}", self.policies[*at]))).unwrap()
    }
}

impl Identity for Role {
    fn credential(&self) -> &CredentialId {
        &self.credential
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.connector.clone()
    }

    fn takes(&self) -> Vec<Permission> {
        let mut all = self.named(&[1, 2]);
        let more = ["lifetime:token_ttl=300", "lifetime:token_max_ttl=600", "lifetime:secret_id_ttl=1800"];
        all.extend(permissions(more).unwrap());
        all
    }

    async fn state(&self) -> String {
        self.of(&self.name).await
    }

    fn without(&self, before: &str) -> String {
        let mut role: Value = serde_json::from_str(before).unwrap();
        role["token_policies"] = json!([self.policies[0]]);
        for (setting, seconds) in [("token_ttl", 300), ("token_max_ttl", 600), ("secret_id_ttl", 1800)] {
            role[setting] = json!(seconds);
        }
        role.to_string()
    }

    async fn bystander(&self) -> String {
        self.of("other").await
    }

    async fn assert_works(&self, what: &str) {
        let (token, _) = self.admin.approle_login(&self.mount, &self.secret_id).await;
        let (status, answer) =
            self.admin.call_as(&token, "POST", "sys/capabilities-self", json!({"paths": ["sys/read"]})).await;
        assert_eq!((status, &answer["data"]["sys/read"]), (200, &json!(["read"])), "{what}");
    }

    fn secret(&self) -> Option<&str> {
        Some(&self.role_id)
    }

    async fn also_otherwise(&self) {
        let (_, auth) = self.admin.call("GET", "sys/auth", Value::Null).await;
        let accessor = auth["data"][format!("{}/", self.mount)]["accessor"].clone();
        let (_, id) = self.admin.call("GET", &format!("auth/{}/role/ci/role-id", self.mount), Value::Null).await;
        let name = unique("entity");
        let entity = json!({"name": name, "policies": [self.policies[1]]});
        self.admin.done("POST", "identity/entity", entity).await;
        let (_, made) = self.admin.call("GET", &format!("identity/entity/name/{name}"), Value::Null).await;
        let alias =
            json!({"name": id["data"]["role_id"], "canonical_id": made["data"]["id"], "mount_accessor": accessor});
        self.admin.done("POST", "identity/entity-alias", alias).await;
    }
}

over_both! {
    what_is_taken_from_an_approle_survives_every_kill,
    what_is_taken_from_an_approle_survives_every_fault,
    giving_an_approle_back_what_it_still_has_otherwise_survives_every_kill,
    giving_an_approle_back_what_was_taken_survives_every_kill,
    giving_an_approle_back_what_was_taken_survives_every_fault,
}

async fn what_is_taken_from_an_approle_survives_every_kill(store: Store) {
    every_kill(store, Way::Taken, Role::new).await;
}

async fn what_is_taken_from_an_approle_survives_every_fault(store: Store) {
    every_fault(store, Way::Taken, Role::new).await;
}

async fn giving_an_approle_back_what_it_still_has_otherwise_survives_every_kill(store: Store) {
    every_kill(store, Way::Undone, Role::new).await;
}

async fn giving_an_approle_back_what_was_taken_survives_every_kill(store: Store) {
    every_kill(store, Way::GivenBack, Role::new).await;
}

async fn giving_an_approle_back_what_was_taken_survives_every_fault(store: Store) {
    every_fault(store, Way::GivenBack, Role::new).await;
}
