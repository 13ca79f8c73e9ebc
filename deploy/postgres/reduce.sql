-- Curfew's own role where it takes permissions from others: a login of its own, which nothing else uses. As a superuser, in
-- the database whose objects are meant:
--
--   psql -f deploy/postgres/reduce.sql
--   \password curfew_reduce        (so that the value is in no file and in no log)

CREATE ROLE curfew_reduce LOGIN NOCREATEROLE NOSUPERUSER CONNECTION LIMIT 10;

-- To see whether sessions are left that may have gone over to a group.
GRANT pg_read_all_stats TO curfew_reduce;

-- To take and to give what the owner granted it must act for the owner, of each schema that is meant. To take and to give a
-- membership it must be allowed to pass the group on, for each group that is meant.

-- Up to PostgreSQL 15:
--
--   GRANT app_owner TO curfew_reduce;
--   GRANT readers TO curfew_reduce WITH ADMIN OPTION;

-- From PostgreSQL 16 on a membership has a grantor, and is taken by who acts for that one: what a superuser granted only a
-- superuser takes. So a role of its own, as which nobody logs in, grants the memberships that are meant:
--
--   GRANT app_owner TO curfew_reduce WITH INHERIT TRUE, SET FALSE;
--   CREATE ROLE app_access;
--   GRANT readers TO app_access WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
--   GRANT app_access TO curfew_reduce WITH INHERIT TRUE, SET FALSE;
--
-- and each one that may be taken is had from that one, not from the superuser:
--
--   GRANT readers TO etl GRANTED BY app_access;
--   REVOKE readers FROM etl GRANTED BY postgres;
