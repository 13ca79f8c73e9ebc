# Bindings learn from metadata which run a credential is of. It lists and looks, and never revokes: give it its own login,
# not the enforcer's. Leave out what no rule of yours needs.
#
#   vault policy write curfew-bind deploy/vault/bind.hcl

# `tokens_of`: the accessors of all tokens (no prefix can narrow this list; Vault wants sudo for it), and what is said of
# each. An accessor cannot be used to log in; whoever may also call revoke-accessor could end every one of them.
path "auth/token/accessors/" { capabilities = ["list", "sudo"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }

# `alias: true`: who is behind a token. Shows each entity of this Vault, with its aliases.
path "identity/lookup/entity" { capabilities = ["update"] }

# `secret_ids_of`: of the AppRoles named here and no others. Repeat both blocks for each.
path "auth/approle/role/ci-runner/secret-id" { capabilities = ["list"] }
path "auth/approle/role/ci-runner/secret-id-accessor/lookup" { capabilities = ["update"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
