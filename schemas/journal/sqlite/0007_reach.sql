-- What sources say of who reaches what. Never read while cases are claimed.

-- A source, and where it stands (JSON). `generation` grows with each change of one of its facts.
CREATE TABLE reach_sources (
  tenant TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

-- What a source says of one node: itself, and the edges that leave it (JSON). `digest` is of the body: what is unchanged is not
-- written again. `since_ms`: since when it is said in this form.
CREATE TABLE reach_facts (
  tenant TEXT NOT NULL, source TEXT NOT NULL, node TEXT NOT NULL, digest BLOB NOT NULL, since_ms INTEGER NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (tenant, source, node)
) WITHOUT ROWID;
