-- When identities used their grants, as an issuer's own log says. Never read while cases are claimed.

-- A log, where it was read up to, and since when without a gap (JSON).
CREATE TABLE reach_watched (
  tenant TEXT NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, source)
) WITHOUT ROWID;

-- The last time that `who` (role:<mount>/<name>, entity:<id>) used `what` ('': anything, policy:<name>, as:<mount>/<role>, login:<mount>).
CREATE TABLE reach_uses (
  tenant TEXT NOT NULL, source TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, last_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, source, who, what)
) WITHOUT ROWID;

-- Since when a source states anything of a node, in whatever form.
ALTER TABLE reach_facts ADD COLUMN first_ms INTEGER NOT NULL DEFAULT 0;
UPDATE reach_facts SET first_ms = since_ms;
