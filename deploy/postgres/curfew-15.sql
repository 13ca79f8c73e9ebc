-- Curfew's own role at a PostgreSQL whose users it rotates: 10 to 15. As a superuser, in any database:
--
--   psql -f deploy/postgres/curfew-15.sql
--   \password curfew        (so that the value is in no file and in no log)

-- Before 16 only CREATEROLE may set another user's password, and it may do so for every user that is no superuser and
-- does not replicate, and grant itself most roles: this login is worth a superuser's. From 16 on it is not.
CREATE ROLE curfew LOGIN CREATEROLE CONNECTION LIMIT 20;

-- To end sessions of the old value: never a superuser's.
GRANT pg_signal_backend TO curfew;

-- To see when a session began. Without it sessions of a single user are reported, not ended.
GRANT pg_read_all_stats TO curfew;
