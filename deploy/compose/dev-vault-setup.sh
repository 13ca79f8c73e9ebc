#!/bin/sh
# DEVELOPMENT ONLY: initialises and unseals Vault, keeps its unseal key and root token in /keys, mounts the database
# engine on PostgreSQL, and leaves Curfew an AppRole login and the journal's URL in /login. Safe to run again.
set -eu
umask 077

[ -s /keys/init ] || vault operator init -key-shares=1 -key-threshold=1 > /keys/init
vault operator unseal "$(sed -n 's/^Unseal Key 1: //p' /keys/init)" > /dev/null
VAULT_TOKEN=$(sed -n 's/^Initial Root Token: //p' /keys/init)
export VAULT_TOKEN

for policy in enforce reconcile; do
    vault policy write "curfew-$policy" "/policies/$policy.hcl"
done

vault secrets list | grep -q '^database/' || vault secrets enable database
vault write database/config/postgres plugin_name=postgresql-database-plugin allowed_roles=task \
    connection_url='postgresql://{{username}}:{{password}}@127.0.0.1:5432/postgres' \
    username=postgres password="$POSTGRES_PASSWORD"
vault write database/roles/task db_name=postgres default_ttl=1h max_ttl=24h creation_statements=\
"CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"

vault auth list | grep -q '^approle/' || vault auth enable approle
vault write auth/approle/role/curfew token_policies=curfew-enforce,curfew-reconcile token_no_default_policy=true \
    token_ttl=1h token_max_ttl=24h
vault read -field=role_id auth/approle/role/curfew/role-id > /login/role-id
[ -s /login/secret-id ] || vault write -f -field=secret_id auth/approle/role/curfew/secret-id > /login/secret-id
printf 'postgres://postgres:%s@127.0.0.1:5432/postgres' "$POSTGRES_PASSWORD" > /login/journal.url
chown -R 10001:10001 /login # the user of deploy/Dockerfile
