# The canary of the role `canary`: mints a lease that may do nothing, and asks whether it is gone. Let the role's creation
# statements make a user without any right.
#
#   vault policy write curfew-canary deploy/vault/canary.hcl
#   vault token create -orphan -period=1h -policy=curfew-canary

path "auth/token/create" { capabilities = ["update"] }

path "database/creds/canary" { capabilities = ["read"] }

# Whether it is gone: a lookup has no path of its own for each lease.
path "sys/leases/lookup" { capabilities = ["update"] }

# In `default` as well.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
