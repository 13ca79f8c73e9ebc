//! What sources say of reach, in sets.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::rows::{column, json, text, texts};
use super::{Error, Postgres};
use crate::credential::CredentialId;
use crate::reach::changes::generation;
use crate::reach::uses::{Use, Watched};
use crate::reach::{About, Changes, Fact, Facts, Node, Page, Source};

#[async_trait]
impl Facts for Postgres {
    async fn digests(&self, tenant: &str, source: &str) -> Result<HashMap<Node, [u8; 16]>, Error> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT node, digest FROM reach_facts WHERE tenant = $1 AND source = $2")
                .bind(tenant)
                .bind(source)
                .fetch_all(&self.inner.pool)
                .await?;
        let corrupt = || Error::Corrupt { what: "reach_facts" };
        let of = |(name, digest): (String, Vec<u8>)| {
            Ok((Node::parse(&name).map_err(|_| corrupt())?, digest.try_into().map_err(|_| corrupt())?))
        };
        rows.into_iter().map(of).collect()
    }

    async fn change(&self, changes: Changes) -> Result<(), Error> {
        self.inner.write(|| change(self, &changes)).await
    }

    async fn stated(&self, tenant: &str, source: &str, nodes: Vec<Node>) -> Result<Vec<Fact>, Error> {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let bodies: Vec<String> = sqlx::query_scalar(
            "SELECT f.body FROM unnest($3::text[]) k(node) CROSS JOIN LATERAL (SELECT body FROM reach_facts \
             WHERE tenant = $1 AND source = $2 AND node = k.node LIMIT 1) f",
        )
        .bind(tenant)
        .bind(source)
        .bind(nodes)
        .fetch_all(&self.inner.pool)
        .await?;
        bodies.iter().map(|body| json("reach_facts", body)).collect()
    }

    async fn forget(&self, tenant: &str, source: &str) -> Result<(), Error> {
        let forget = || async {
            let mut tx = self.inner.pool.begin().await?;
            for sql in [
                "DELETE FROM reach_facts WHERE tenant = $1 AND source = $2",
                "DELETE FROM reach_uses WHERE tenant = $1 AND source = $2",
                "DELETE FROM reach_watched WHERE tenant = $1 AND source = $2",
                "DELETE FROM reach_sources WHERE tenant = $1 AND name = $2",
            ] {
                sqlx::query(sql).bind(tenant).bind(source).execute(&mut *tx).await?;
            }
            Ok(tx.commit().await?)
        };
        self.inner.write(forget).await
    }

    async fn sources(&self) -> Result<(Vec<Source>, i64), Error> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT generation, body FROM reach_sources ORDER BY tenant, name")
                .fetch_all(&self.inner.pool)
                .await?;
        let sources = rows.iter().map(|(_, body)| json("reach_sources", body)).collect::<Result<Vec<Source>, _>>()?;
        let counted = sources.iter().zip(&rows).map(|(source, (count, _))| (&*source.tenant, &*source.name, *count));
        let generation = generation(counted);
        Ok((sources, generation))
    }

    async fn watched(&self) -> Result<Vec<Watched>, Error> {
        let bodies: Vec<String> = sqlx::query_scalar("SELECT body FROM reach_watched ORDER BY tenant, source")
            .fetch_all(&self.inner.pool)
            .await?;
        bodies.iter().map(|body| json("reach_watched", body)).collect()
    }

    async fn uses(&self, tenant: &str, source: &str) -> Result<Vec<Use>, Error> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT who, what, last_ms FROM reach_uses WHERE tenant = $1 AND source = $2")
                .bind(tenant)
                .bind(source)
                .fetch_all(&self.inner.pool)
                .await?;
        Ok(rows.into_iter().map(|(who, what, last_ms)| Use { who, what, last_ms }).collect())
    }

    async fn used(&self, watched: Watched, uses: Vec<Use>) -> Result<(), Error> {
        self.inner.write(|| used(self, &watched, &uses, &[])).await
    }

    async fn forget_uses(&self, watched: Watched, gone: Vec<String>) -> Result<(), Error> {
        self.inner.write(|| used(self, &watched, &[], &gone)).await
    }

    async fn weigh(&self, tenant: &str, weights: Vec<(CredentialId, u64)>, only_more: bool) -> Result<u64, Error> {
        let weigh = || async {
            // Locked in the order in which all lock them; what stands already is not written again.
            let done = sqlx::query(
                "WITH new AS MATERIALIZED (SELECT c.id, v.blast FROM unnest($2::text[], $3::bigint[]) v(id, blast) \
                 CROSS JOIN LATERAL (SELECT id, blast FROM credentials WHERE tenant = $1 AND id = v.id OFFSET 0) c \
                 WHERE c.blast IS NULL OR c.blast < v.blast OR (NOT $4 AND c.blast > v.blast)), \
                 k AS MATERIALIZED (SELECT id FROM credentials WHERE tenant = $1 AND id = ANY(SELECT id FROM new) ORDER BY id FOR UPDATE) \
                 UPDATE credentials SET blast = new.blast FROM new JOIN k ON k.id = new.id \
                 WHERE credentials.tenant = $1 AND credentials.id = new.id",
            )
            .bind(tenant)
            .bind(texts(&weights, |(id, _)| id.as_str()))
            .bind(column(&weights, |(_, blast)| i64::try_from(*blast).unwrap_or(i64::MAX)))
            .bind(only_more)
            .execute(&self.inner.pool)
            .await?;
            Ok(done.rows_affected())
        };
        self.inner.write(weigh).await
    }

    async fn page(&self, after: Option<[String; 3]>, max: usize) -> Result<Page, Error> {
        let [tenant, source, name] = after.unwrap_or_default();
        let rows: Vec<(String, String, String, i64, String, i64)> = sqlx::query_as(
            "SELECT tenant, source, node, since_ms, body, first_ms FROM reach_facts WHERE (tenant, source, node) > ($1, $2, $3) \
             ORDER BY tenant, source, node LIMIT $4",
        )
        .bind(tenant)
        .bind(source)
        .bind(name)
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(&self.inner.pool)
        .await?;
        let key = |(tenant, source, node, ..): &(String, String, String, i64, String, i64)| {
            [tenant.clone(), source.clone(), node.clone()]
        };
        let next = if rows.len() < max { None } else { rows.last().map(key) };
        let mut facts = Vec::with_capacity(rows.len());
        let mut last: Arc<str> = "".into();
        for (_, source, _, since_ms, body, first_ms) in rows {
            if *last != *source {
                last = source.into();
            }
            let mut fact: Fact = json("reach_facts", &body)?;
            fact.about = About { first_ms: Some(first_ms), ..fact.about };
            facts.push((last.clone(), fact, since_ms));
        }
        Ok(Page { facts, next })
    }
}

async fn used(journal: &Postgres, watched: &Watched, uses: &[Use], gone: &[String]) -> Result<(), Error> {
    let mut tx = journal.inner.pool.begin().await?;
    if !gone.is_empty() {
        sqlx::query("DELETE FROM reach_uses WHERE tenant = $1 AND source = $2 AND who = ANY($3)")
            .bind(&watched.tenant)
            .bind(&watched.source)
            .bind(gone)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query(
        "INSERT INTO reach_watched (tenant, source, body) VALUES ($1, $2, $3) ON CONFLICT (tenant, source) \
         DO UPDATE SET body = excluded.body",
    )
    .bind(&watched.tenant)
    .bind(&watched.source)
    .bind(text("reach_watched", watched)?)
    .execute(&mut *tx)
    .await?;
    for some in uses.chunks(crate::reach::CHUNK) {
        sqlx::query(
            "INSERT INTO reach_uses (tenant, source, who, what, last_ms) SELECT $1, $2, * FROM unnest($3::text[], \
             $4::text[], $5::bigint[]) ON CONFLICT (tenant, source, who, what) DO UPDATE \
             SET last_ms = greatest(reach_uses.last_ms, excluded.last_ms)",
        )
        .bind(&watched.tenant)
        .bind(&watched.source)
        .bind(texts(some, |one| &one.who))
        .bind(texts(some, |one| &one.what))
        .bind(column(some, |one| one.last_ms))
        .execute(&mut *tx)
        .await?;
    }
    Ok(tx.commit().await?)
}

async fn change(journal: &Postgres, changes: &Changes) -> Result<(), Error> {
    let source = &changes.source;
    let grows = i64::from(!changes.put.is_empty() || !changes.gone.is_empty());
    let mut tx = journal.inner.pool.begin().await?;
    sqlx::query(
        "INSERT INTO reach_sources (tenant, name, generation, body) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, name) \
         DO UPDATE SET generation = reach_sources.generation + $3, body = excluded.body",
    )
    .bind(&source.tenant)
    .bind(&source.name)
    .bind(grows)
    .bind(text("reach_sources", source)?)
    .execute(&mut *tx)
    .await?;
    if !changes.put.is_empty() {
        let nodes: Vec<String> = changes.put.iter().map(|stated| stated.fact.node.to_string()).collect();
        let bodies =
            changes.put.iter().map(|stated| text("reach_facts", &stated.fact)).collect::<Result<Vec<_>, _>>()?;
        sqlx::query(
            "INSERT INTO reach_facts (tenant, source, node, digest, since_ms, body, first_ms) SELECT $1, $2, k.*, k.since_ms \
             FROM unnest($3::text[], $4::bytea[], $5::bigint[], $6::text[]) k(node, digest, since_ms, body) ON CONFLICT (tenant, source, node) DO UPDATE \
             SET digest = excluded.digest, since_ms = excluded.since_ms, body = excluded.body",
        )
        .bind(&source.tenant)
        .bind(&source.name)
        .bind(texts(&nodes, |node| node))
        .bind(column(&changes.put, |stated| stated.digest.to_vec()))
        .bind(column(&changes.put, |stated| stated.since_ms))
        .bind(bodies)
        .execute(&mut *tx)
        .await?;
    }
    if !changes.gone.is_empty() {
        let nodes: Vec<String> = changes.gone.iter().map(ToString::to_string).collect();
        sqlx::query("DELETE FROM reach_facts WHERE tenant = $1 AND source = $2 AND node = ANY($3)")
            .bind(&source.tenant)
            .bind(&source.name)
            .bind(nodes)
            .execute(&mut *tx)
            .await?;
    }
    Ok(tx.commit().await?)
}
