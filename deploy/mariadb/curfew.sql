-- Curfew's own user at a MariaDB (10.5 and later) whose users it rotates. As an administrator:
--
--   mariadb < deploy/mariadb/curfew.sql
--   SET PASSWORD FOR curfew@'%' = '*…';   (SHA1(SHA1(password)) in hexadecimal digits, so that the value is in no log)
--
-- Put Curfew's machine in the place of '%', and add REQUIRE SSL where it is another one than MariaDB's.

CREATE USER curfew@'%' IDENTIFIED VIA mysql_native_password USING 'invalid' WITH MAX_USER_CONNECTIONS 40;

-- To set and lock: of any account, an administrator's as well. MariaDB cannot narrow that, so this login is worth one.
-- To see whose sessions are open, with their statements. To end them.
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO curfew@'%';

-- To see accounts and their hashes, and to compare what two users may.
GRANT SELECT ON mysql.global_priv TO curfew@'%';
GRANT SELECT ON mysql.db TO curfew@'%';
GRANT SELECT ON mysql.tables_priv TO curfew@'%';
GRANT SELECT ON mysql.columns_priv TO curfew@'%';
GRANT SELECT ON mysql.procs_priv TO curfew@'%';
GRANT SELECT ON mysql.roles_mapping TO curfew@'%';
GRANT SELECT ON mysql.proxies_priv TO curfew@'%';
