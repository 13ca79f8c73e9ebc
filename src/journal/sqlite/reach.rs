//! What sources say of reach. Read by a connection of its own kind of work: people's.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::rows::{all, exec, json, one, text};
use super::writer::Writer;
use super::{Error, Sqlite};
use crate::credential::CredentialId;
use crate::reach::changes::generation;
use crate::reach::uses::{Use, Watched};
use crate::reach::{About, Changes, Fact, Facts, Node, Page, Source};

#[async_trait]
impl Facts for Sqlite {
    async fn digests(&self, tenant: &str, source: &str) -> Result<HashMap<Node, [u8; 16]>, Error> {
        let (tenant, source) = (tenant.to_owned(), source.to_owned());
        Self::read(&self.people, move |db| {
            let sql = "SELECT node, digest FROM reach_facts WHERE tenant=? AND source=?";
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, [u8; 16]>(1)?));
            let rows = all(db, sql, [tenant, source], row)?;
            rows.into_iter().map(|(name, digest)| Ok((node(&name)?, digest))).collect()
        })
        .await
    }

    async fn change(&self, changes: Changes) -> Result<(), Error> {
        self.write(move |w| change(w, &changes)).await
    }

    async fn stated(&self, tenant: &str, source: &str, nodes: Vec<Node>) -> Result<Vec<Fact>, Error> {
        let (tenant, source) = (tenant.to_owned(), source.to_owned());
        Self::read(&self.people, move |db| {
            let sql = "SELECT body FROM reach_facts WHERE tenant=? AND source=? AND node=?";
            let mut facts = Vec::new();
            for node in nodes {
                let body = one(db, sql, [&tenant, &source, &node.to_string()], |row| row.get::<_, String>(0))?;
                facts.extend(body.map(|body| json("reach_facts", &body)).transpose()?);
            }
            Ok(facts)
        })
        .await
    }

    async fn forget(&self, tenant: &str, source: &str) -> Result<(), Error> {
        let (tenant, source) = (tenant.to_owned(), source.to_owned());
        self.write(move |w| {
            for table in ["reach_facts", "reach_uses", "reach_watched"] {
                exec(&w.db, &format!("DELETE FROM {table} WHERE tenant=? AND source=?"), [&tenant, &source])?;
            }
            exec(&w.db, "DELETE FROM reach_sources WHERE tenant=? AND name=?", [&tenant, &source]).map(drop)
        })
        .await
    }

    async fn sources(&self) -> Result<(Vec<Source>, i64), Error> {
        Self::read(&self.people, |db| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
            let rows = all(db, "SELECT generation, body FROM reach_sources ORDER BY tenant, name", [], row)?;
            let sources =
                rows.iter().map(|(_, body)| json("reach_sources", body)).collect::<Result<Vec<Source>, _>>()?;
            let counted =
                sources.iter().zip(&rows).map(|(source, (count, _))| (&*source.tenant, &*source.name, *count));
            let generation = generation(counted);
            Ok((sources, generation))
        })
        .await
    }

    async fn watched(&self) -> Result<Vec<Watched>, Error> {
        Self::read(&self.people, |db| {
            let sql = "SELECT body FROM reach_watched ORDER BY tenant, source";
            let rows = all(db, sql, [], |row| row.get::<_, String>(0))?;
            rows.iter().map(|body| json("reach_watched", body)).collect()
        })
        .await
    }

    async fn uses(&self, tenant: &str, source: &str) -> Result<Vec<Use>, Error> {
        let (tenant, source) = (tenant.to_owned(), source.to_owned());
        Self::read(&self.people, move |db| {
            let sql = "SELECT who, what, last_ms FROM reach_uses WHERE tenant=? AND source=?";
            let row = |row: &rusqlite::Row<'_>| Ok(Use { who: row.get(0)?, what: row.get(1)?, last_ms: row.get(2)? });
            all(db, sql, [tenant, source], row)
        })
        .await
    }

    async fn used(&self, watched: Watched, uses: Vec<Use>) -> Result<(), Error> {
        self.write(move |w| used(w, &watched, &uses)).await
    }

    async fn forget_uses(&self, watched: Watched, gone: Vec<String>) -> Result<(), Error> {
        self.write(move |w| {
            let sql = "DELETE FROM reach_uses WHERE tenant=? AND source=? AND who=?";
            for who in &gone {
                exec(&w.db, sql, params![watched.tenant, watched.source, who])?;
            }
            used(w, &watched, &[])
        })
        .await
    }

    async fn weigh(&self, tenant: &str, weights: Vec<(CredentialId, u64)>, only_more: bool) -> Result<u64, Error> {
        let tenant = tenant.to_owned();
        let of = tenant.clone();
        // What stands already is not written again: nearly all of it.
        let new = Self::read(&self.people, move |db| {
            let sql = "SELECT blast FROM credentials WHERE tenant=? AND id=?";
            let mut new = Vec::new();
            for (id, blast) in weights {
                let blast = i64::try_from(blast).unwrap_or(i64::MAX);
                let known = one(db, sql, params![of, id.as_str()], |row| row.get::<_, Option<i64>>(0))?;
                let is_new =
                    |known: Option<i64>| known.is_none_or(|known| known < blast || (!only_more && known > blast));
                new.extend(known.filter(|known| is_new(*known)).map(|_| (id, blast)));
            }
            Ok(new)
        })
        .await?;
        let count = new.len() as u64;
        if count > 0 {
            self.write(move |w| {
                let sql = "UPDATE credentials SET blast=? WHERE tenant=? AND id=?";
                new.iter().try_for_each(|(id, blast)| exec(&w.db, sql, params![blast, tenant, id.as_str()]).map(drop))
            })
            .await?;
        }
        Ok(count)
    }

    async fn page(&self, after: Option<[String; 3]>, max: usize) -> Result<Page, Error> {
        Self::read(&self.people, move |db| page(db, after, max)).await
    }
}

fn node(name: &str) -> Result<Node, Error> {
    Node::parse(name).map_err(|_| Error::Corrupt { what: "reach_facts" })
}

fn change(w: &mut Writer, changes: &Changes) -> Result<(), Error> {
    let source = &changes.source;
    let grows = i64::from(!changes.put.is_empty() || !changes.gone.is_empty());
    exec(
        &w.db,
        "INSERT INTO reach_sources (tenant, name, generation, body) VALUES (?1,?2,?3,?4) ON CONFLICT DO UPDATE \
         SET generation=generation+?3, body=excluded.body",
        params![source.tenant, source.name, grows, text("reach_sources", source)?],
    )?;
    for stated in &changes.put {
        exec(
            &w.db,
            "INSERT INTO reach_facts (tenant, source, node, digest, since_ms, body, first_ms) VALUES (?1,?2,?3,?4,?5,?6,?5) \
             ON CONFLICT DO UPDATE SET digest=excluded.digest, since_ms=excluded.since_ms, body=excluded.body",
            params![
                source.tenant,
                source.name,
                stated.fact.node.to_string(),
                stated.digest,
                stated.since_ms,
                text("reach_facts", &stated.fact)?
            ],
        )?;
    }
    for gone in &changes.gone {
        let sql = "DELETE FROM reach_facts WHERE tenant=? AND source=? AND node=?";
        exec(&w.db, sql, params![source.tenant, source.name, gone.to_string()])?;
    }
    Ok(())
}

fn used(w: &mut Writer, watched: &Watched, uses: &[Use]) -> Result<(), Error> {
    exec(
        &w.db,
        "INSERT INTO reach_watched (tenant, source, body) VALUES (?,?,?) ON CONFLICT DO UPDATE SET body=excluded.body",
        params![watched.tenant, watched.source, text("reach_watched", watched)?],
    )?;
    for one in uses {
        exec(
            &w.db,
            "INSERT INTO reach_uses (tenant, source, who, what, last_ms) VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE \
             SET last_ms=max(last_ms, excluded.last_ms)",
            params![watched.tenant, watched.source, one.who, one.what, one.last_ms],
        )?;
    }
    Ok(())
}

fn page(db: &Connection, after: Option<[String; 3]>, max: usize) -> Result<Page, Error> {
    let [tenant, source, name] = after.unwrap_or_default();
    let sql = "SELECT tenant, source, node, since_ms, body, first_ms FROM reach_facts WHERE (tenant, source, node) > (?,?,?) \
               ORDER BY tenant, source, node LIMIT ?";
    let most = i64::try_from(max).unwrap_or(i64::MAX);
    let row = |row: &rusqlite::Row<'_>| {
        let key: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        Ok((key, row.get::<_, i64>(3)?, row.get::<_, String>(4)?, row.get::<_, i64>(5)?))
    };
    let rows = all(db, sql, params![tenant, source, name, most], row)?;
    let next = if rows.len() < max { None } else { rows.last().map(|(key, ..)| key.clone()) };
    let mut facts = Vec::with_capacity(rows.len());
    let mut last: Arc<str> = "".into();
    for ([_, source, _], since_ms, body, first_ms) in rows {
        if *last != *source {
            last = source.into();
        }
        let mut fact: Fact = json("reach_facts", &body)?;
        fact.about = About { first_ms: Some(first_ms), ..fact.about };
        facts.push((last.clone(), fact, since_ms));
    }
    Ok(Page { facts, next })
}
