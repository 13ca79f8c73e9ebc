-- Names and meanings are those of ../sqlite/0007_reach.sql.

CREATE TABLE reach_sources (
  tenant TEXT NOT NULL, name TEXT NOT NULL, generation BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, name)
);

CREATE TABLE reach_facts (
  tenant TEXT COLLATE "C" NOT NULL, source TEXT COLLATE "C" NOT NULL, node TEXT COLLATE "C" NOT NULL, digest BYTEA NOT NULL, since_ms BIGINT NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (tenant, source, node)
);
