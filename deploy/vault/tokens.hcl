# DANGER: the holder of this policy can end every token of this Vault (namespace), root tokens included. Vault
# cannot narrow revoke-accessor: its parameter is an opaque accessor. Therefore it is a realm of its own, off by
# default: a separate login in a separate process, and only where tasks hold Vault tokens that must die.
#
#   vault policy write curfew-tokens deploy/vault/tokens.hcl

path "auth/token/revoke-accessor" { capabilities = ["update"] }

# Before: whose is it, what does its metadata say? After: is it gone?
path "auth/token/lookup-accessor" { capabilities = ["update"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
