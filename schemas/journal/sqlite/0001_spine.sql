-- The spine. Times are UTC milliseconds. Codes: task phase 0 expected 1 running 2 ended; grant phase 0 held 1 released
-- 2 cut; tenure 0 minted 1 exclusive 2 standing. JSON only where nothing is searched by it.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- Counters move in the transaction of the fact that they count, and outlive it.
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;

-- Effects charged to the cap, per minute.
CREATE TABLE charges (minute INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;

-- A null next_offset: nothing was recorded yet, only read to its end.
CREATE TABLE positions (
  cluster TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
  next_offset INTEGER, last_ms INTEGER NOT NULL, last_digest BLOB NOT NULL, caught_up_ms INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (cluster, topic, partition)
) WITHOUT ROWID, STRICT;

-- The key is a hash over tenant, source and id.
CREATE TABLE seen (hash BLOB PRIMARY KEY, digest BLOB NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID, STRICT;
CREATE INDEX seen_at ON seen (at_ms);

-- One row for each accepted event, with its one decision. linked: the cases that it led to; open_cases: those still open.
CREATE TABLE events (
  tenant TEXT NOT NULL, id BLOB NOT NULL,
  source TEXT NOT NULL, event_id TEXT NOT NULL, kind TEXT NOT NULL,
  topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
  broker_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  verb TEXT NOT NULL, reason TEXT NOT NULL, facts TEXT NOT NULL, rules TEXT NOT NULL,
  linked INTEGER NOT NULL, open_cases INTEGER NOT NULL, traceparent TEXT,
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID, STRICT;
-- Those that led to no case are kept for a shorter time: else one would look for them among all others.
CREATE INDEX events_bare ON events (at_ms) WHERE linked = 0;

CREATE TABLE tasks (
  tenant TEXT NOT NULL, run TEXT NOT NULL,
  source TEXT NOT NULL, name TEXT, identity TEXT, attempt INTEGER NOT NULL, phase INTEGER NOT NULL,
  first_seen_ms INTEGER NOT NULL, started_ms INTEGER, deadline_ms INTEGER NOT NULL, clamped_from_ms INTEGER,
  heartbeat_every_ms INTEGER, last_beat_ms INTEGER, ended_ms INTEGER, outcome TEXT,
  alive_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, run)
) WITHOUT ROWID, STRICT;
-- Some indexes repeat what their condition reads: then counting reads no row.
CREATE INDEX tasks_due ON tasks (due_ms, tenant, run, deadline_ms, phase) WHERE phase < 2;
CREATE INDEX tasks_beating ON tasks (tenant, source, alive_ms, phase, heartbeat_every_ms) WHERE phase < 2 AND heartbeat_every_ms IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended_ms) WHERE phase = 2;

-- topics: a JSON list of those that registered it.
CREATE TABLE grants (
  tenant TEXT NOT NULL, run TEXT NOT NULL, credential TEXT NOT NULL,
  attempt INTEGER NOT NULL, tenure INTEGER NOT NULL, phase INTEGER NOT NULL, registered_ms INTEGER NOT NULL,
  topics TEXT NOT NULL,
  PRIMARY KEY (tenant, run, credential)
) WITHOUT ROWID, STRICT;
CREATE INDEX grants_holders ON grants (tenant, credential, phase);

CREATE TABLE credentials (
  tenant TEXT NOT NULL, id TEXT NOT NULL,
  principal TEXT, registered_ms INTEGER NOT NULL, seen_ms INTEGER, issued_ms INTEGER, expires_ms INTEGER,
  dead_ms INTEGER, lookup_due_ms INTEGER,
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID, STRICT;
CREATE INDEX credentials_lookup ON credentials (lookup_due_ms) WHERE lookup_due_ms IS NOT NULL;

-- body: the case as JSON, the fold of its records up to seq. While a case is claimed its records may be ahead of it.
CREATE TABLE cases (
  no INTEGER PRIMARY KEY, tenant TEXT NOT NULL, id BLOB NOT NULL,
  credential TEXT NOT NULL, run TEXT, system TEXT NOT NULL, urgency INTEGER NOT NULL, due_ms INTEGER NOT NULL,
  state TEXT NOT NULL, hold TEXT, opened_ms INTEGER NOT NULL, closed_ms INTEGER, seq INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX cases_id ON cases (id);
CREATE UNIQUE INDEX cases_open ON cases (tenant, credential) WHERE closed_ms IS NULL;
CREATE INDEX cases_due ON cases (system, urgency, due_ms) WHERE closed_ms IS NULL;
CREATE INDEX cases_state ON cases (state, hold, opened_ms, closed_ms) WHERE closed_ms IS NULL;
CREATE INDEX cases_closed ON cases (closed_ms) WHERE closed_ms IS NOT NULL;

CREATE TABLE links (
  tenant TEXT NOT NULL, case_id BLOB NOT NULL, event_id BLOB NOT NULL, PRIMARY KEY (tenant, case_id, event_id)
) WITHOUT ROWID, STRICT;

CREATE TABLE records (
  tenant TEXT NOT NULL, case_id BLOB NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, records TEXT NOT NULL,
  PRIMARY KEY (tenant, case_id, seq)
) WITHOUT ROWID, STRICT;

CREATE TABLE systems (system TEXT PRIMARY KEY, blocked_until_ms INTEGER NOT NULL, reason TEXT NOT NULL)
  WITHOUT ROWID, STRICT;

-- Numbers without gaps. The last row is kept when all are sent: the next one's prev is its hash.
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, traceparent TEXT,
  at_ms INTEGER NOT NULL
) STRICT;
