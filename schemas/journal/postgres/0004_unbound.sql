-- Names and meanings are those of ../sqlite/0004_unbound.sql.

ALTER TABLE tasks ADD COLUMN unbound BOOLEAN NOT NULL DEFAULT false;
CREATE INDEX tasks_unbound ON tasks (ended_ms) WHERE unbound;
