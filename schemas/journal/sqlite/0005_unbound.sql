-- unbound: it ended, and nobody has said what it held.
ALTER TABLE tasks ADD COLUMN unbound INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_unbound ON tasks (ended_ms, unbound) WHERE unbound = 1;
