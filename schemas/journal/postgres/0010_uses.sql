-- Names and meanings are those of ../sqlite/0011_uses.sql.

CREATE TABLE reach_watched (tenant TEXT NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, source));

CREATE TABLE reach_uses (
  tenant TEXT NOT NULL, source TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, last_ms BIGINT NOT NULL,
  PRIMARY KEY (tenant, source, who, what)
);

ALTER TABLE reach_facts ADD COLUMN first_ms BIGINT NOT NULL DEFAULT 0;
UPDATE reach_facts SET first_ms = since_ms;
