# AppRoles whose secret_id is rotated: those of the recipes named here and no others. Repeat the six blocks for each; a
# glob in the place of the role would reach the secret_id that Curfew itself logs in with. The values are stored in a KV
# engine: kv-store.hcl as well.
#
#   vault policy write curfew-approle-rotate deploy/vault/approle-rotate.hcl

# Who the role is: a new secret_id is tried by a login before anybody reads it.
path "auth/approle/role/billing/role-id" { capabilities = ["read"] }

# Whether an offboarding has closed the role: then no login says anything of a value, and a leaked one is replaced all the same. Without
# this such a rotation waits until the fence is over, and the old value is dead.
path "auth/approle/role/billing" { capabilities = ["read"] }

# Which secret_id a stored value is. Whoever has this and no value learns nothing.
path "auth/approle/role/billing/secret-id/lookup" { capabilities = ["update"] }
path "auth/approle/role/billing/secret-id-accessor/lookup" { capabilities = ["update"] }

# Registers one that we picked. Its holder can log in as the role.
path "auth/approle/role/billing/custom-secret-id" { capabilities = ["update"] }

# Ends the old one, by its accessor.
path "auth/approle/role/billing/secret-id-accessor/destroy" { capabilities = ["update"] }

# Whether it gives batch tokens, which nobody can list or end. Without it the outcome says `derived_unknown`.
path "auth/approle/role/billing" { capabilities = ["read"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
