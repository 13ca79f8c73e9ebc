//! Schedulers' own events, with a secret in each field that is not read: it comes in, and does not go on.

use curfew::event::Format;

use super::scans::Lab;
use super::*;

/// A record: its headers, its body.
type Told = (Vec<(&'static str, String)>, Value);

/// A life of one run, with `secret` wherever its format has room for one; the last one is an end.
fn life(format: Format, secret: &str) -> Vec<Told> {
    let bare = |body: Value| (Vec::new(), body);
    match format {
        // What nobody publishes has a canary of its own.
        Format::Curfew | Format::Kubernetes => Vec::new(),
        Format::OpenLineage => ["START", "RUNNING", "OTHER", "FAIL"].map(|kind| bare(lineage(kind, secret))).into(),
        Format::CdEvents => ["started", "queued", "finished"].map(|what| bare(cdevent(what, secret))).into(),
        Format::Tekton => ["started", "queued", "failed"].map(|what| tekton(what, secret)).into(),
        Format::A2a => ["submitted", "auth-required", "unknown", "failed"].map(|state| bare(a2a(state, secret))).into(),
    }
}

fn cdevent(what: &str, secret: &str) -> Value {
    json!({
        "context": {"type": format!("dev.cdevents.taskrun.{what}.0.3.0"), "source": "/ci", "id": secret, "chainId": secret,
            "timestamp": "2026-09-01T10:00:00Z", "links": [{"target": secret}], secret: secret},
        "subject": {"id": "1", "type": secret, secret: secret, "content": {
            "taskName": "deploy", "uri": format!("https://u:{secret}@ci"), "outcome": "failure", "errors": secret,
            "pipelineRun": {"id": secret}, secret: secret}},
        "customData": {"env": {"TOKEN": secret}}, "customDataContentType": secret, secret: secret,
    })
}

fn tekton(what: &str, secret: &str) -> Told {
    let param = json!([{"name": secret, "value": secret}]);
    let body = json!({"taskRun": {
        "metadata": {"uid": "1", "name": "run", "namespace": "ci", "annotations": {secret: secret}, "labels": {"l": secret}},
        "spec": {"params": param, "serviceAccountName": "deployer", "taskRef": {"name": "deploy", "params": param},
            "taskSpec": {"steps": [{"script": secret}]}, "timeout": "1h0m0s", "workspaces": [{"secret": secret}]},
        "status": {"startTime": "2026-09-01T10:00:00Z", "podName": secret, "results": param, "steps": [secret],
            "conditions": [{"type": "Succeeded", "status": "False", "reason": "Failed", "message": secret}]},
        secret: secret,
    }});
    (vec![("ce_type", format!("dev.tekton.event.taskrun.{what}.v1")), ("ce_subject", secret.to_owned())], body)
}

fn a2a(state: &str, secret: &str) -> Value {
    let message = json!({"messageId": secret, "role": secret, "parts": [{"text": secret}, {"data": {secret: secret}}]});
    json!({"kind": "task", "id": "1", "contextId": secret, "metadata": {secret: secret}, "history": [message],
        "status": {"state": state, "timestamp": "2026-09-01T10:00:00Z", "message": message, secret: secret},
        "artifacts": [{"artifactId": secret, "parts": [{"text": secret}]}], secret: secret})
}

fn lineage(kind: &str, secret: &str) -> Value {
    let facet = json!({"_producer": secret, "_schemaURL": secret, "any": [{secret: secret}]});
    json!({
        "eventType": kind, "eventTime": "2026-09-01T10:00:00Z", "producer": secret, "schemaURL": secret, secret: secret,
        "run": {"runId": "1", secret: secret, "facets": {
            "environmentVariables": {"environmentVariables": [{"name": "TOKEN", "value": secret}]},
            "errorMessage": {"message": secret, "programmingLanguage": secret, "stackTrace": secret},
            "airflow": {"dagRun": {"conf": {"password": secret}}, "task": {"env": secret}},
            "parent": facet, "nominalTime": facet, "unknownSourceAttribute": facet, "later": facet,
        }},
        "job": {"namespace": "prod", "name": "etl.load", secret: secret, "facets": {
            "sourceCode": {"language": "bash", "sourceCode": secret}, "sql": {"query": secret},
            "documentation": {"description": secret}, "ownership": {"owners": [{"name": secret}]},
        }},
        "inputs": [{"namespace": format!("postgres://u:{secret}@db"), "name": secret, "facets": facet}],
        "outputs": [{"namespace": secret, "name": secret, "facets": facet}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_scheduler_s_event_goes_on() {
    let mut lab = Lab::start().await;
    let secret = made_up("c4nary/+");
    let secrets = BTreeMap::from([("what a scheduler told".to_owned(), secret.clone())]);
    let scanner = Scanner::new(&secrets);
    let pen = Pen::new();
    let (mut starts, mut ends) = (0, 0);
    for (format, topic) in lab.schedulers.clone() {
        let path = format!("/tasks/{}", format.as_str());
        let told = life(format, &secret);
        for (headers, event) in &told {
            let event = event.to_string().into_bytes();
            assert!(!scanner.names(&event).is_empty(), "the control");
            let kafka: Vec<(&str, Option<&[u8]>)> = headers.iter().map(|(n, v)| (*n, Some(v.as_bytes()))).collect();
            let http: Vec<(String, &str)> = headers.iter().map(|(n, v)| (n.replace('_', "-"), v.as_str())).collect();
            pen.raw(&topic, 0, Some(&event), &kafka).await;
            assert_eq!(lab.post_as(&path, "application/json", &http, event.clone()).await.0, 200, "{path}");
            // Torn: what cannot be read is not repeated.
            let torn = &event[..event.len() - 2];
            pen.raw(&topic, 0, Some(torn), &kafka).await;
            assert_eq!(lab.post_as(&path, "application/json", &http, torn.to_vec()).await.0, 400, "{path}");
        }
        // With the secret where something is read, and where nothing may stand.
        let first = told[0].1.to_string();
        let bell = format!("\"{secret}\\u0007\"");
        for event in [first.replacen("\"1\"", &bell, 1), format!("[{bell}]"), format!("{{\"kind\": {bell}}}")] {
            pen.raw(&topic, 0, Some(event.as_bytes()), &[("ce_type", Some(secret.as_bytes()))]).await;
            let http = [("ce-type".to_owned(), secret.as_str())];
            assert_eq!(lab.post_as(&path, "application/json", &http, event.into_bytes()).await.0, 400, "{path}");
        }
        starts += 1;
        ends += 1;
    }
    lab.holds("task.started", starts).await;
    lab.holds("task.ended", ends).await;
    let home = lab.home().to_owned();
    assert_eq!(lab.written.command(&home, &["tasks", "--ended", "--json"]).0, Some(0));
    lab.ends_clean(&secrets).await;
}
