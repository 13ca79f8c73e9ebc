-- Names and meanings are those of ../sqlite/0010_offboarded.sql.

CREATE TABLE offboardings (
  tenant TEXT NOT NULL, node TEXT NOT NULL, topic TEXT NOT NULL, since_ms BIGINT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (tenant, node, topic)
);

CREATE TABLE fences (case_id UUID PRIMARY KEY, until_ms BIGINT NOT NULL, body TEXT NOT NULL);
CREATE INDEX fences_due ON fences (until_ms);
