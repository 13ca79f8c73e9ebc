# AppRoles whose policies may be taken and given back: those of `reductions` in the configuration and no others. Repeat the
# blocks for each; a glob in the place of the role would reach the role by which Curfew itself logs in. Whoever has this
# can give such a role any policy of this Vault: it is a login of its own, which nothing else uses.
#
#   vault policy write curfew-reduce deploy/vault/reduce.hcl

# What the role has, and who it is: one that was made anew under its name is another.
path "auth/approle/role/etl" { capabilities = ["read"] }
path "auth/approle/role/etl/role-id" { capabilities = ["read"] }

# Its list of policies is replaced, and how long what it gives lives; no policy itself is touched.
path "auth/approle/role/etl/policies" { capabilities = ["update"] }
path "auth/approle/role/etl/token-ttl" { capabilities = ["update"] }
path "auth/approle/role/etl/token-max-ttl" { capabilities = ["update"] }
path "auth/approle/role/etl/secret-id-ttl" { capabilities = ["update"] }

# The fence of an offboarding: from where the role lets in, and its tokens, becomes nowhere, and what it was comes back. Without
# these the role's values die all the same, and that it was not closed first is said (`not_fenced`).
path "auth/approle/role/etl/secret-id-bound-cidrs" { capabilities = ["update", "delete"] }
path "auth/approle/role/etl/token-bound-cidrs" { capabilities = ["update", "delete"] }

# And the entity behind the role is disabled, where it is the role's alone, and enabled again. `+` reaches every entity of this Vault, so
# whoever has this could shut anybody out: put the ids of the roles' entities in its place where they are known. Nothing else of an entity
# can be written. Without this line the role is closed all the same, and the outcome says `entity_open`.
path "identity/entity/id/+" {
  capabilities = ["update"]
  allowed_parameters = { "disabled" = [] }
}

# Whether the entity behind it, or a group of that one, gives the same policy.
path "sys/internal/ui/mounts/auth/approle" { capabilities = ["read"] }
path "identity/lookup/entity" { capabilities = ["update"] }
path "identity/group/id/+" { capabilities = ["read"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
