//! Reads the history from where it stands, when all is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use curfew::case::Case;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::history::{Asked, CaseRow, Claim, Counters, Journal, RoleChange};
use super::load::{FINDINGS, OUTCOMES, REJECTED, TASKS};
use super::proxy::WHO;
use super::rotating;

/// As [`Claim`].
type ClaimColumns = (Uuid, Option<i64>, Option<Uuid>, String, i64, i64);

/// The journal's tables.
pub async fn journal(side: &PgPool) -> Journal {
    let own = format!("SELECT count(*) FROM events WHERE topic NOT IN ('{TASKS}', '{FINDINGS}')");
    let own: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(own)).fetch_one(side).await.unwrap();
    let events = "SELECT event_id FROM events WHERE topic IN ($1, $2)";
    let miscounted = "SELECT event_id FROM events e WHERE open_cases <> (SELECT count(*) FROM links l JOIN cases c \
        ON c.id = l.case_id WHERE l.tenant = e.tenant AND l.event_id = e.id AND c.closed_ms IS NULL)";
    let counters: Vec<i64> = sqlx::query_scalar(
        "SELECT unnest(ARRAY[sum(consumed), sum(accepted), sum(closed), sum(rejected), sum(duplicates), \
         sum(cases_opened), sum(cases_closed)])::bigint FROM writers",
    )
    .fetch_all(side)
    .await
    .unwrap();
    let [consumed, accepted, closed, rejected, duplicates, cases_opened, cases_closed] = counters.try_into().unwrap();
    let claims: Vec<ClaimColumns> =
        sqlx::query_as("SELECT case_id, epoch, worker, by, at_ms, until_ms FROM chaos.claims ORDER BY no")
            .fetch_all(side)
            .await
            .unwrap();
    let claim =
        |(case, epoch, worker, by, at_ms, until_ms): ClaimColumns| Claim { case, epoch, worker, by, at_ms, until_ms };
    Journal {
        events: sqlx::query_scalar(events).bind(TASKS).bind(FINDINGS).fetch_all(side).await.unwrap(),
        own_events: usize::try_from(own).unwrap(),
        miscounted: sqlx::query_scalar(miscounted).fetch_all(side).await.unwrap(),
        counters: Counters { consumed, accepted, closed, rejected, duplicates, cases_opened, cases_closed },
        cases: cases(side).await,
        claims: claims.into_iter().map(claim).collect(),
        charges: sqlx::query_as("SELECT minute, count FROM charges ORDER BY 1").fetch_all(side).await.unwrap(),
        outbox: sqlx::query_as("SELECT seq, sent FROM outbox_tail").fetch_one(side).await.unwrap(),
    }
}

async fn cases(side: &PgPool) -> Vec<CaseRow> {
    let rows: Vec<(Uuid, i64, i64, String)> =
        sqlx::query_as("SELECT case_id, seq, at_ms, records FROM records ORDER BY case_id, seq")
            .fetch_all(side)
            .await
            .unwrap();
    let mut records: BTreeMap<Uuid, Vec<_>> = BTreeMap::new();
    for (case, seq, at_ms, text) in rows {
        records.entry(case).or_default().push((seq, at_ms, serde_json::from_str(&text).unwrap()));
    }
    let rows: Vec<(Uuid, String, Option<i64>)> =
        sqlx::query_as("SELECT id, body, closed_ms FROM cases ORDER BY no").fetch_all(side).await.unwrap();
    let row = |(id, body, closed_ms): (Uuid, String, Option<i64>)| CaseRow {
        case: serde_json::from_str::<Case>(&body).unwrap(),
        closed_ms,
        records: records.remove(&id).unwrap_or_default(),
    };
    rows.into_iter().map(row).collect()
}

/// Each row of each table, as text.
pub async fn rows(side: &PgPool) -> String {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = 'curfew' ORDER BY 1")
            .fetch_all(side)
            .await
            .unwrap();
    let mut all = String::new();
    for table in tables {
        // Bytes as text: in hexadecimal nothing would be found.
        let sql = match table.as_str() {
            "outbox" => "SELECT convert_from(body, 'UTF8') FROM outbox".to_owned(),
            table => format!("SELECT t::text FROM {table} t"),
        };
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(side).await.unwrap();
        all.extend(rows.into_iter().map(|row| row + "\n"));
    }
    all
}

/// A record of a topic.
pub struct Logged {
    pub topic: &'static str,
    pub partition: i32,
    pub offset: i64,
    pub body: Vec<u8>,
}

/// What was published, the topics one after the other; and everything that was sent to Curfew's topics.
pub async fn published(brokers: &str) -> (Vec<Vec<u8>>, Vec<Logged>) {
    let brokers = brokers.to_owned();
    let read = move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", "witness").create().unwrap();
        let told = [OUTCOMES, REJECTED].into_iter().flat_map(|topic| read_topic(&consumer, topic));
        let sent = [TASKS, FINDINGS].into_iter().flat_map(|topic| read_topic(&consumer, topic));
        (told.map(|record| record.body).collect(), sent.collect())
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn read_topic(consumer: &BaseConsumer, topic: &'static str) -> Vec<Logged> {
    let wait = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(topic), wait).unwrap();
    let mut records = Vec::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), wait).unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition.id(), Offset::Offset(low)).unwrap();
        consumer.assign(&from).unwrap();
        let (mut next, began) = (low, std::time::Instant::now());
        while next < high {
            // It also comes back for what is no record, and with errors that pass.
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(200)) {
                next = record.offset() + 1;
                let (partition, offset) = (record.partition(), record.offset());
                records.push(Logged { topic, partition, offset, body: record.payload().unwrap_or_default().to_vec() });
            }
            assert!(began.elapsed() < wait * 3, "{topic} {} ends at {high}, read to {next}", partition.id());
        }
    }
    records
}

/// Vault's audit log: what processes asked, with Vault's answers.
pub fn audit(log: &Path) -> Vec<Asked> {
    let text = std::fs::read_to_string(log).unwrap();
    let mut asked: BTreeMap<String, Asked> = BTreeMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let request = &line["request"];
        let Some(by) = request["headers"][WHO][0].as_str() else { continue };
        let id = request["id"].as_str().unwrap_or_default().to_owned();
        let at: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        let path = request["path"].as_str().unwrap_or_default();
        let data = &request["data"];
        let about = path.strip_prefix("sys/leases/revoke/").or_else(|| data["lease_id"].as_str());
        let about = about.or_else(|| data["accessor"].as_str()).map(str::to_owned);
        // What is only read there is no effect.
        if path.starts_with(rotating::MOUNT) && matches!(request["operation"].as_str(), Some("read" | "list")) {
            continue;
        }
        let about = about.or_else(|| rotating::about(path));
        let one = asked.entry(id).or_insert_with(|| Asked {
            at_ms: at.as_millisecond(),
            by: by.to_owned(),
            path: path.to_owned(),
            about,
            refused: Some("no answer in the log".to_owned()),
        });
        if line["type"] == "response" {
            let warnings = line["response"]["warnings"].as_array().into_iter().flatten();
            let warned = warnings.filter_map(Value::as_str).next();
            one.refused = line["error"].as_str().or(warned).map(str::to_owned);
            // What a connector reads is in the body, and the log may say it only there.
            if let Some(error) = line["response"]["data"]["error"].as_str() {
                one.refused.get_or_insert_with(|| error.to_owned());
            }
        }
    }
    let mut asked: Vec<Asked> = asked.into_values().collect();
    asked.sort_by_key(|one| one.at_ms);
    asked
}

/// PostgreSQL's log: roles that were dropped, and roles whose login was disabled.
pub fn roles(log: &Path) -> Vec<RoleChange> {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    let change = |line: &str| {
        // Done, and not only parsed or bound.
        let done = line.contains(" LOG:  duration: ") && (line.contains(" execute ") || line.contains(" statement: "));
        let dropped = done && line.contains("DROP ROLE");
        let disabled = line.contains(" LOG: ") && line.contains("ALTER ROLE") && line.contains("NOLOGIN");
        if !dropped && !disabled {
            return None;
        }
        let stamp = line.get(..23)?.replace(' ', "T") + "Z";
        let by = line.split("] ").nth(1)?.split('@').next()?.to_owned();
        let user = line.split('"').nth(1)?.to_owned();
        Some(RoleChange { at_ms: stamp.parse::<jiff::Timestamp>().ok()?.as_millisecond(), user, by, dropped })
    };
    text.lines().filter_map(change).collect()
}
