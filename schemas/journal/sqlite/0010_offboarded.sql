-- Who leaves, by each topic that says so (JSON: `offboard::Offboarding`). Few rows: read as a whole.
CREATE TABLE offboardings (
  tenant TEXT NOT NULL, node TEXT NOT NULL, topic TEXT NOT NULL, since_ms INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (tenant, node, topic)
) WITHOUT ROWID;

-- Fences that a case has set, or may have, since before the effect (JSON: `scope::Fence`), until what there was is given back.
CREATE TABLE fences (case_id BLOB PRIMARY KEY, until_ms INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX fences_due ON fences (until_ms);
