-- What a task said at its start that its credentials are for: JSON, or NULL.
ALTER TABLE tasks ADD COLUMN boundary text;
