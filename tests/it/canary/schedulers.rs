//! Schedulers' own events, with a secret in each field that is not read: it comes in, and does not go on.

use curfew::event::Format;

use super::scans::Lab;
use super::*;

/// A life of one run, with `secret` wherever its format has room for one; the last one is an end.
fn life(format: Format, secret: &str) -> Vec<Value> {
    match format {
        Format::Curfew => Vec::new(),
        Format::OpenLineage => ["START", "RUNNING", "OTHER", "FAIL"].map(|kind| lineage(kind, secret)).to_vec(),
    }
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
        let events: Vec<Vec<u8>> = life(format, &secret).iter().map(|event| event.to_string().into_bytes()).collect();
        assert!(events.iter().all(|event| !scanner.names(event).is_empty()), "the control");
        let path = format!("/tasks/{}", format.as_str());
        for event in &events {
            pen.raw(&topic, 0, Some(event), &[]).await;
            assert_eq!(lab.post(&path, "application/json", event.clone()).await.0, 200);
            // Torn: what cannot be read is not repeated.
            let torn = &event[..event.len() - 2];
            pen.raw(&topic, 0, Some(torn), &[]).await;
            assert_eq!(lab.post(&path, "application/json", torn.to_vec()).await.0, 400);
        }
        // With the secret where something is read, and where nothing may stand.
        let odd = |from: &str, to: &str| String::from_utf8_lossy(&events[0]).replacen(from, to, 1).into_bytes();
        let bell = format!("\"{secret}\\u0007\"");
        for event in [odd("\"1\"", &bell), odd("\"2026-09-01T10:00:00Z\"", &bell), format!("[{bell}]").into_bytes()] {
            pen.raw(&topic, 0, Some(&event), &[]).await;
            assert_eq!(lab.post(&path, "application/json", event).await.0, 400);
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
