-- Curfew's own role where it takes permissions from others: a login of its own, which nothing else uses. As a superuser, in
-- the database whose objects are meant:
--
--   psql -f deploy/postgres/reduce.sql
--   \password curfew_reduce        (so that the value is in no file and in no log)

CREATE ROLE curfew_reduce LOGIN NOCREATEROLE NOSUPERUSER CONNECTION LIMIT 10;

-- To take and to give what the owner granted it must act for the owner, of each schema that is meant:
--
--   GRANT app_owner TO curfew_reduce;

-- To take and to give a membership it must be allowed to pass the group on, for each group that is meant:
--
--   GRANT readers TO curfew_reduce WITH ADMIN OPTION;

-- To see whether sessions are left that may have gone over to a group.
GRANT pg_read_all_stats TO curfew_reduce;
