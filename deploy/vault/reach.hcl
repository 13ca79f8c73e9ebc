# Who reaches what at this Vault is told from its settings: policies, roles, entities, groups. It reads no secret and mints
# nothing: give it its own login. What it is not given is noted as left out, and nothing is taken for "no access".
#
#   vault policy write curfew-reach deploy/vault/reach.hcl

path "sys/mounts" { capabilities = ["read"] }
path "sys/auth" { capabilities = ["read"] }
path "sys/policies/acl" { capabilities = ["list"] }
path "sys/policies/acl/*" { capabilities = ["read"] }

# Roles and users of each auth method. Not below them: `role/NAME/role-id` and `secret-id` are no settings.
path "auth/+/role" { capabilities = ["list"] }
path "auth/+/role/+" { capabilities = ["read"] }

# Which AppRole an entity is of only the role's role_id tells. With this line an entity can be offboarded by its name, and no other role is
# shown as the one that may be it. It is half of a login (all of one where `bind_secret_id` is off), so it is yours to give; it is compared,
# and kept nowhere.
# path "auth/+/role/+/role-id" { capabilities = ["read"] }

path "auth/+/users" { capabilities = ["list"] }
path "auth/+/users/+" { capabilities = ["read"] }
path "auth/+/groups" { capabilities = ["list"] }
path "auth/+/groups/+" { capabilities = ["read"] }
path "auth/token/roles" { capabilities = ["list"] }
path "auth/token/roles/+" { capabilities = ["read"] }

# How long tokens of a method live where its role says nothing. Without it nothing is called `long_lived`.
path "sys/mounts/auth/+/tune" { capabilities = ["read"] }

# What database engines mint, by name.
path "+/roles" { capabilities = ["list"] }
path "+/static-roles" { capabilities = ["list"] }

path "identity/entity/id" { capabilities = ["list"] }
path "identity/entity/id/+" { capabilities = ["read"] }
path "identity/group/id" { capabilities = ["list"] }
path "identity/group/id/+" { capabilities = ["read"] }

# The policies of tokens that Curfew knows. An accessor cannot be used to log in.
path "auth/token/lookup-accessor" { capabilities = ["update"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
