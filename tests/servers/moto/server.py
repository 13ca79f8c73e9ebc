"""moto's server, where Secrets Manager says what AWS's documents say, and moto does not.

- A version was made in a millisecond, and is listed with that time. moto knows whole seconds, and lists the time of the asking.
- A version that is there is never written over: with other content the call is refused. moto replaces one that is AWSPENDING.
"""

import json
import sys
import time

from moto.secretsmanager.exceptions import ResourceExistsException
from moto.secretsmanager.models import SecretsManagerBackend as Backend
from moto.server import main

add, put, listed = Backend._add_secret, Backend.put_secret_value, Backend.list_secret_version_ids


def add_with_milliseconds(self, secret_id, *args, **more):
    secret, is_new = add(self, secret_id, *args, **more)
    for version in secret.versions.values():
        if isinstance(version["createdate"], int):
            version["createdate"] = round(time.time(), 3)
    return secret, is_new


def put_once(self, secret_id, secret_string, secret_binary, client_request_token, version_stages):
    secret = self.secrets.get(secret_id)
    there = secret and secret.versions.get(client_request_token)
    if there:
        if (there.get("secret_string"), there.get("secret_binary")) != (secret_string, secret_binary):
            raise ResourceExistsException("the version has other content")
        return secret.to_short_dict(include_version_stages=True, version_id=client_request_token)
    return put(self, secret_id, secret_string, secret_binary, client_request_token, version_stages)


def list_with_their_times(self, secret_id):
    answer = json.loads(listed(self, secret_id))
    for version in answer["Versions"]:
        version["CreatedDate"] = self.secrets[secret_id].versions[version["VersionId"]]["createdate"]
    return json.dumps(answer)


Backend._add_secret, Backend.put_secret_value = add_with_milliseconds, put_once
Backend.list_secret_version_ids = list_with_their_times
main(sys.argv[1:])
