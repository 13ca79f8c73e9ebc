# Whoever starts tasks by `curfew exec`: what the tasks may have, and no more. Repeat the last block for each role. The
# task's token is a child of this one: it can have no policy that this one lacks.
#
#   vault policy write curfew-exec deploy/vault/exec.hcl

path "auth/token/create" { capabilities = ["update"] }

path "database/creds/ro" { capabilities = ["read"] }

# In `default` as well, which the task's token has: who am I, renew me, end me; end a lease with the task; wrap.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
