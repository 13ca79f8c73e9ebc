-- A run that is a part of another one is over once that one has ended.
ALTER TABLE tasks ADD COLUMN within TEXT;
CREATE INDEX tasks_parts ON tasks (tenant, within, phase) WHERE within IS NOT NULL;
