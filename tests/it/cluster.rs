//! What the controllers and the kubelet of a cluster do, and its administrator: they write to the real kube-apiserver.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{env, repository, unique, until};

/// An administrator at the kube-apiserver that `tests/servers/servers` started, with a namespace of its own.
pub struct Cluster {
    pub namespace: String,
    address: String,
    ca: String,
    token: String,
    http: reqwest::Client,
}

impl Cluster {
    /// With a namespace in which Curfew may read.
    pub async fn new() -> Self {
        let cluster = Self::bare().await;
        cluster.allow().await;
        cluster
    }

    /// With a namespace in which Curfew may do nothing.
    pub async fn bare() -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let ca = env("CURFEW_TEST_KUBE_CA");
        let pem = std::fs::read(&ca).unwrap();
        let roots = reqwest::Certificate::from_pem_bundle(&pem).unwrap();
        let http = reqwest::Client::builder().tls_certs_only(roots).build().unwrap();
        let namespace = unique("ml");
        let (address, token) = (env("CURFEW_TEST_KUBE"), env("CURFEW_TEST_KUBE_TOKEN"));
        let cluster = Self { namespace, address, ca, token, http };
        cluster.make("/api/v1/namespaces", json!({"metadata": {"name": &cluster.namespace}})).await;
        cluster
    }

    /// Applies the files that an operator applies, with this namespace for the one in them.
    pub async fn allow(&self) {
        let read = |file: &str| -> Value {
            let path = repository().join("deploy/kubernetes").join(file);
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let (list, watched) = (read("rbac.yaml"), read("watched.yaml"));
        for item in list["items"].as_array().unwrap().iter().chain([&watched]) {
            let kind = item["kind"].as_str().unwrap();
            let group = item["apiVersion"].as_str().unwrap();
            let root = if group == "v1" { "/api/v1".to_owned() } else { format!("/apis/{group}") };
            let mut item = item.clone();
            let within = match item["metadata"]["namespace"].as_str() {
                Some("ml") => {
                    item["metadata"]["namespace"] = json!(self.namespace);
                    format!("/namespaces/{}", self.namespace)
                }
                Some(other) => format!("/namespaces/{other}"),
                None => String::new(),
            };
            let (status, answer) =
                self.call(Method::POST, &format!("{root}{within}/{}s", kind.to_lowercase()), &item).await;
            // Another test may have been first: that is as good.
            assert!(status == 201 || status == 409, "{kind}: {status} {answer}");
        }
        // Its rules are known to the apiserver a moment later.
        let path = format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace);
        let token = self.curfew_token().await;
        until("the rights", || async { (self.as_who(&token, &path).await == 200).then_some(()) }).await;
        until("the right to know the cluster", || async {
            (self.as_who(&token, "/api/v1/namespaces/kube-system").await == 200).then_some(())
        })
        .await;
        // That is all that it may do.
        for refused in ["secrets", "configmaps", "pods/x/log"] {
            let path = format!("/api/v1/namespaces/{}/{refused}", self.namespace);
            assert_eq!(self.as_who(&token, &path).await, 403, "{refused}");
        }
        assert_eq!(self.as_who(&token, "/api/v1/namespaces").await, 403);
    }

    /// From now on Curfew may list and watch here, and ask for nothing by its name.
    pub async fn allow_lists_only(&self) {
        let group = "rbac.authorization.k8s.io";
        let root = format!("/apis/{group}/v1/namespaces/{}", self.namespace);
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list", "watch"]}]);
        self.make(&format!("{root}/roles"), json!({"metadata": {"name": "lists"}, "rules": rules})).await;
        let subjects = json!([{"kind": "ServiceAccount", "name": "curfew", "namespace": "curfew"}]);
        let role = json!({"apiGroup": group, "kind": "Role", "name": "lists"});
        let binding = json!({"metadata": {"name": "lists"}, "roleRef": role, "subjects": subjects});
        self.make(&format!("{root}/rolebindings"), binding).await;
        let (status, answer) =
            self.call(Method::DELETE, &format!("{root}/rolebindings/curfew-watch"), &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        let token = self.curfew_token().await;
        let jobs = format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace);
        until("the rights", || async {
            let may = (self.as_who(&token, &jobs).await, self.as_who(&token, &format!("{jobs}/x")).await);
            (may == (200, 403)).then_some(())
        })
        .await;
    }

    async fn as_who(&self, token: &str, path: &str) -> u16 {
        let request = self.http.get(format!("{}{path}", self.address)).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    }

    pub async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.address)).bearer_auth(&self.token);
        if method == Method::PATCH {
            request = request.header("content-type", "application/merge-patch+json").body(body.to_string());
        } else if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn make(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, &body).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    /// The uid by which the cluster is known.
    pub async fn uid(&self) -> String {
        let (status, system) = self.call(Method::GET, "/api/v1/namespaces/kube-system", &Value::Null).await;
        assert_eq!(status, 200, "{system}");
        system["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// A token of Curfew's own service account.
    pub async fn curfew_token(&self) -> String {
        for (path, body) in [
            ("/api/v1/namespaces", json!({"metadata": {"name": "curfew"}})),
            ("/api/v1/namespaces/curfew/serviceaccounts", json!({"metadata": {"name": "curfew"}})),
        ] {
            self.call(Method::POST, path, &body).await;
        }
        let path = "/api/v1/namespaces/curfew/serviceaccounts/curfew/token";
        let answer = self.make(path, json!({"spec": {"expirationSeconds": 3600}})).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// Writes a kubeconfig with Curfew's login; `address` may be a proxy's. Returns its token.
    pub async fn kubeconfig(&self, file: &Path, address: Option<&str>) -> String {
        let token = self.curfew_token().await;
        let server = address.map_or_else(|| self.address.clone(), |address| format!("https://{address}"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": self.ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
        });
        std::fs::write(file, config.to_string()).unwrap();
        token
    }

    /// `host:port`, for a proxy.
    pub fn upstream(&self) -> &str {
        self.address.strip_prefix("https://").unwrap()
    }

    fn path(&self, sort: &str) -> String {
        let root = if sort == "jobs" { "/apis/batch/v1" } else { "/api/v1" };
        format!("{root}/namespaces/{}/{sort}", self.namespace)
    }

    /// A Job, as a user makes it; `more` goes over its spec. Returns its uid.
    pub async fn job(&self, name: &str, more: Value) -> String {
        let mut spec = json!({"template": {"spec": pod_spec()}});
        merge(&mut spec, more);
        let job = json!({"metadata": {"name": name, "labels": {"team": "ml"}}, "spec": spec});
        uid(&self.make(&self.path("jobs"), job).await)
    }

    /// A Pod on a node, as the Job controller and the scheduler make it; `more` goes over it. Returns its uid.
    pub async fn pod(&self, name: &str, more: Value) -> String {
        let mut pod = json!({"metadata": {"name": name, "labels": {"team": "ml"}}, "spec": pod_spec()});
        pod["spec"]["nodeName"] = json!("node-1");
        merge(&mut pod, more);
        uid(&self.make(&self.path("pods"), pod).await)
    }

    /// Writes a status, as the controllers and the kubelet do.
    pub async fn status(&self, sort: &str, name: &str, status: Value) {
        let path = format!("{}/{name}/status", self.path(sort));
        let (code, answer) = self.call(Method::PATCH, &path, &json!({"status": status})).await;
        assert_eq!(code, 200, "{name}: {answer}");
    }

    /// Changes an object, as a user does.
    pub async fn patch(&self, sort: &str, name: &str, change: Value) {
        let (code, answer) = self.call(Method::PATCH, &format!("{}/{name}", self.path(sort)), &change).await;
        assert_eq!(code, 200, "{name}: {answer}");
    }

    pub async fn starts(&self, job: &str) {
        self.status("jobs", job, json!({"startTime": now(), "active": 1})).await;
    }

    /// As the Job controller ends it: first what is to become of it, while Pods may run, then that it is so.
    pub async fn targets(&self, job: &str, conditions: &[(&str, &str)]) {
        let all = conditions.iter().map(|(kind, reason)| condition(kind, reason)).collect::<Vec<_>>();
        self.status("jobs", job, json!({"conditions": all})).await;
    }

    pub async fn completes(&self, job: &str) {
        let conditions = ["SuccessCriteriaMet", "Complete"].map(|kind| condition(kind, "CompletionsReached"));
        let status = json!({"active": 0, "succeeded": 1, "completionTime": now(), "conditions": conditions});
        self.status("jobs", job, status).await;
    }

    pub async fn fails(&self, job: &str, reason: &str) {
        let conditions = ["FailureTarget", "Failed"].map(|kind| condition(kind, reason));
        self.status("jobs", job, json!({"active": 0, "failed": 1, "conditions": conditions})).await;
    }

    /// `grace`: seconds that its containers have; 0 removes it at once.
    pub async fn delete(&self, sort: &str, name: &str, grace: u32) {
        let body = json!({"gracePeriodSeconds": grace, "propagationPolicy": "Background"});
        let (code, answer) = self.call(Method::DELETE, &format!("{}/{name}", self.path(sort)), &body).await;
        assert_eq!(code, 200, "{name}: {answer}");
    }
}

pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn condition(kind: &str, reason: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "lastTransitionTime": now(), "lastProbeTime": now()})
}

fn pod_spec() -> Value {
    json!({"serviceAccountName": "trainer", "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]})
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Lays `more` over `all`.
fn merge(all: &mut Value, more: Value) {
    match (all, more) {
        (Value::Object(all), Value::Object(more)) => {
            for (name, value) in more {
                merge(all.entry(name).or_insert(Value::Null), value);
            }
        }
        (all, more) => *all = more,
    }
}
