-- The spine, for many processes. Names, codes and meanings are those of ../sqlite/0001_spine.sql; what differs says why.
-- The connection's search_path is the journal's own schema.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

-- Leases run by the database's clock: no process's own counts.
CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE sql VOLATILE
  AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- The fencing epoch of each claim: later claims have greater ones.
CREATE SEQUENCE epochs AS BIGINT;

-- Counters, for each start of a process and each of its ways to write: none waits for another's. `commits` tells after a
-- failover whether a commit that was acknowledged is still there. Rows of processes that are long gone become one, of
-- the nil id.
CREATE TABLE writers (
  id UUID NOT NULL, way SMALLINT NOT NULL, at_ms BIGINT NOT NULL, commits BIGINT NOT NULL DEFAULT 0,
  consumed BIGINT NOT NULL DEFAULT 0, accepted BIGINT NOT NULL DEFAULT 0, closed BIGINT NOT NULL DEFAULT 0,
  rejected BIGINT NOT NULL DEFAULT 0, duplicates BIGINT NOT NULL DEFAULT 0, cases_opened BIGINT NOT NULL DEFAULT 0,
  cases_closed BIGINT NOT NULL DEFAULT 0, tasks_live BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (id, way)
) WITH (fillfactor = 50);

CREATE TABLE charges (minute BIGINT PRIMARY KEY, count BIGINT NOT NULL);

CREATE TABLE positions (
  cluster TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
  next_offset BIGINT, last_ms BIGINT NOT NULL, last_digest BYTEA NOT NULL, caught_up_ms BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (cluster, topic, partition)
) WITH (fillfactor = 50);

CREATE TABLE seen (hash BYTEA PRIMARY KEY, digest BYTEA NOT NULL, at_ms BIGINT NOT NULL);
CREATE INDEX seen_at ON seen (at_ms);

CREATE TABLE events (
  tenant TEXT NOT NULL, id UUID NOT NULL,
  source TEXT NOT NULL, event_id TEXT NOT NULL, kind TEXT NOT NULL,
  topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL,
  broker_ms BIGINT NOT NULL, at_ms BIGINT NOT NULL,
  verb TEXT NOT NULL, reason TEXT NOT NULL, facts TEXT NOT NULL, rules TEXT NOT NULL,
  linked BIGINT NOT NULL, open_cases BIGINT NOT NULL, traceparent TEXT,
  PRIMARY KEY (tenant, id)
);
-- Those that led to no case are kept for a shorter time: else one would look for them among all others.
CREATE INDEX events_bare ON events (at_ms) WHERE linked = 0;

CREATE TABLE tasks (
  tenant TEXT NOT NULL, run TEXT NOT NULL,
  source TEXT NOT NULL, name TEXT, identity TEXT, attempt BIGINT NOT NULL, phase SMALLINT NOT NULL,
  first_seen_ms BIGINT NOT NULL, started_ms BIGINT, deadline_ms BIGINT NOT NULL, clamped_from_ms BIGINT,
  heartbeat_every_ms BIGINT, last_beat_ms BIGINT, ended_ms BIGINT, outcome TEXT,
  alive_ms BIGINT NOT NULL, due_ms BIGINT NOT NULL,
  PRIMARY KEY (tenant, run)
);
CREATE INDEX tasks_due ON tasks (due_ms, tenant, run) INCLUDE (deadline_ms) WHERE phase < 2;
CREATE INDEX tasks_beating ON tasks (tenant, source, alive_ms) WHERE phase < 2 AND heartbeat_every_ms IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended_ms) WHERE phase = 2;

CREATE TABLE grants (
  tenant TEXT NOT NULL, run TEXT NOT NULL, credential TEXT NOT NULL,
  attempt BIGINT NOT NULL, tenure SMALLINT NOT NULL, phase SMALLINT NOT NULL, registered_ms BIGINT NOT NULL,
  topics TEXT NOT NULL,
  PRIMARY KEY (tenant, run, credential)
);
CREATE INDEX grants_holders ON grants (tenant, credential, phase);

CREATE TABLE credentials (
  tenant TEXT NOT NULL, id TEXT NOT NULL,
  principal TEXT, registered_ms BIGINT NOT NULL, seen_ms BIGINT, issued_ms BIGINT, expires_ms BIGINT,
  dead_ms BIGINT, lookup_due_ms BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX credentials_lookup ON credentials (lookup_due_ms) WHERE lookup_due_ms IS NOT NULL;

-- Unlike in SQLite the row is always as new as its newest record, and the claim is in it: whose, with which epoch, which
-- seq its next append must name (joins meanwhile do not disturb it), until when. lane: only where others share it.
CREATE TABLE cases (
  no BIGINT GENERATED ALWAYS AS IDENTITY, tenant TEXT NOT NULL, id UUID PRIMARY KEY,
  credential TEXT NOT NULL, run TEXT, system TEXT NOT NULL, action TEXT NOT NULL, lane TEXT,
  urgency SMALLINT NOT NULL, due_ms BIGINT NOT NULL,
  state TEXT NOT NULL, hold TEXT, opened_ms BIGINT NOT NULL, closed_ms BIGINT, seq BIGINT NOT NULL,
  body TEXT NOT NULL,
  claim_epoch BIGINT, claim_seq BIGINT, claim_until_ms BIGINT NOT NULL DEFAULT 0, claimed_by UUID
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX cases_open ON cases (tenant, credential) WHERE closed_ms IS NULL;
CREATE INDEX cases_due ON cases (system, urgency, due_ms) WHERE closed_ms IS NULL;
CREATE INDEX cases_state ON cases (state, hold, system, action, opened_ms) WHERE closed_ms IS NULL;
CREATE INDEX cases_closed ON cases (closed_ms) WHERE closed_ms IS NOT NULL;
CREATE INDEX cases_about ON cases (credential);

-- Lanes that several credentials share, while one of their cases is claimed.
CREATE TABLE lanes (lane TEXT PRIMARY KEY, case_id UUID NOT NULL, until_ms BIGINT NOT NULL);

CREATE TABLE links (case_id UUID NOT NULL, event_id UUID NOT NULL, tenant TEXT NOT NULL, PRIMARY KEY (case_id, event_id));

CREATE TABLE records (
  case_id UUID NOT NULL, seq BIGINT NOT NULL, tenant TEXT NOT NULL, at_ms BIGINT NOT NULL, records TEXT NOT NULL,
  PRIMARY KEY (case_id, seq)
);

-- Systems that have, or had, cases.
CREATE TABLE systems (system TEXT PRIMARY KEY, blocked_until_ms BIGINT NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '');

-- The newest row's number and hash: whoever writes to the outbox holds this row until its commit, so that numbers have
-- no gaps and come in the order of commits.
CREATE TABLE outbox_tail (one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), seq BIGINT NOT NULL, hash TEXT, sent BIGINT NOT NULL);
INSERT INTO outbox_tail (seq, sent) VALUES (0, 0);
CREATE TABLE outbox (
  seq BIGINT PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, body BYTEA NOT NULL, traceparent TEXT,
  at_ms BIGINT NOT NULL
);

-- Processes that live, what they serve, and which part of each system's budget they have.
CREATE TABLE workers (
  id UUID PRIMARY KEY, until_ms BIGINT NOT NULL, enforces BOOLEAN NOT NULL, systems TEXT[] NOT NULL, actions TEXT[]
);
CREATE TABLE budgets (
  system TEXT NOT NULL, worker UUID NOT NULL REFERENCES workers ON DELETE CASCADE,
  calls BIGINT NOT NULL, per_second BIGINT,
  PRIMARY KEY (system, worker)
);
CREATE INDEX budgets_of ON budgets (worker);

-- Who does what only one may do.
CREATE TABLE leaders (what TEXT PRIMARY KEY, worker UUID NOT NULL, until_ms BIGINT NOT NULL);
