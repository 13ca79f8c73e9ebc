"""moto's server, where Secrets Manager and IAM say what AWS's documents say, and moto does not.

- A version was made in a millisecond, and is listed with that time. moto knows whole seconds, and lists the time of the asking.
- A version that is there is never written over: with other content the call is refused. moto replaces one that is AWSPENDING.
- A rotation is only begun: an empty version has AWSPENDING, and the function is called with each of the four steps, up to
  three times from the first one on. While a version that is not current has AWSPENDING, another one is refused. moto runs a
  function in Docker, and without one it moves the label at once. Here the function is whoever listens on the port that ends
  its name (`…:function:rotates-43211`): a POST of the event, and 200 where the step is done.
- A form is checked as it was signed: moto writes its blanks as `+`, whoever wrote them as `%20`.
- Names of actions are the same in large and small letters. moto tells them apart.
- SimulatePrincipalPolicy answers for users, by what moto itself lets through: their own policies and those of their groups, without
  conditions and boundaries. moto has none.
"""

import json
import sys
import threading
import time
import urllib.request
from urllib.parse import quote, urlencode

from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, IAMRequestBase, IAMUserAccessKey, PermissionResult
from moto.iam.exceptions import InvalidInput, NotFoundException
from moto.iam.responses import IamResponse
from moto.secretsmanager.exceptions import InvalidRequestException, ResourceExistsException, SecretNotFoundException
from moto.secretsmanager.models import SecretsManagerBackend as Backend
from moto.server import main

near = urllib.request.build_opener(urllib.request.ProxyHandler({}))
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
    if there and "secret_string" not in there and "secret_binary" not in there:
        # A rotation has made the version, and its function fills it.
        del secret.versions[client_request_token]
    elif there:
        if (there.get("secret_string"), there.get("secret_binary")) != (secret_string, secret_binary):
            raise ResourceExistsException("the version has other content")
        return secret.to_short_dict(include_version_stages=True, version_id=client_request_token)
    return put(self, secret_id, secret_string, secret_binary, client_request_token, version_stages)


def list_with_their_times(self, secret_id):
    answer = json.loads(listed(self, secret_id))
    for version in answer["Versions"]:
        version["CreatedDate"] = self.secrets[secret_id].versions[version["VersionId"]]["createdate"]
    return json.dumps(answer)


def is_done(secret, step, token):
    port = secret.rotation_lambda_arn.rsplit("-", 1)[1]
    said = {"Step": step, "SecretId": secret.name, "ClientRequestToken": token}
    kind = {"content-type": "application/json"}
    ask = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(said).encode(), kind)
    try:
        return near.open(ask, timeout=10).status == 200
    except OSError:
        return False


def run(secret, token):
    for _ in range(3):
        if all(is_done(secret, step, token) for step in ("createSecret", "setSecret", "testSecret", "finishSecret")):
            secret.last_rotation_date = int(time.time())
            return
        time.sleep(0.1)


def rotate(
    self, secret_id, client_request_token=None, rotation_lambda_arn=None, rotation_rules=None, rotate_immediately=True
):
    if not self._is_valid_identifier(secret_id):
        raise SecretNotFoundException()
    secret = self.secrets[secret_id]
    if secret.is_deleted():
        raise InvalidRequestException("the secret is marked as deleted")
    secret.rotation_requested = secret.rotation_enabled = True
    secret.rotation_lambda_arn = rotation_lambda_arn or secret.rotation_lambda_arn
    if rotate_immediately:
        token, versions = client_request_token, secret.versions
        under_way = [one for one in versions.values() if "AWSPENDING" in one["version_stages"]]
        if any("AWSCURRENT" not in one["version_stages"] and one["version_id"] != token for one in under_way):
            raise InvalidRequestException("A previous rotation isn't complete. That rotation will be reattempted.")
        if token not in versions:
            secret.remove_version_stages_from_old_versions(["AWSPENDING"])
            made = {"createdate": round(time.time(), 3), "version_id": token, "version_stages": ["AWSPENDING"]}
            versions[token] = made
            threading.Thread(target=run, args=(secret, token), daemon=True).start()
    return json.dumps({"ARN": secret.arn, "Name": secret.name, "VersionId": client_request_token})


made, matches = IAMRequestBase._create_aws_request, IAMPolicyStatement._check_element_matches


def made_as_signed(self):
    request = made(self)
    if isinstance(request.data, dict):
        request.data = urlencode(request.data, doseq=True, quote_via=quote, safe="")
    return request


def matches_any_letters(self, element, value):
    if element not in ("Action", "NotAction"):
        return matches(self, element, value)
    patterns = self._statement[element]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(self._match(pattern.lower(), value.lower()) for pattern in patterns)


def decision(policies, action, resource):
    said = [IAMPolicy(policy).is_action_permitted(action, resource) for policy in policies]
    if PermissionResult.DENIED in said:
        return "explicitDeny"
    return "allowed" if PermissionResult.PERMITTED in said else "implicitDeny"


def simulate_principal_policy(self):
    arn, actions = self._get_param("PolicySourceArn"), self._get_param("ActionNames", [])
    users = [user for user in self.backend.list_users("/", None, None) if user.arn == arn]
    if not users:
        raise NotFoundException(f"{arn} was not found")
    if any("*" in action or ":" not in action for action in actions):
        raise InvalidInput("an action is named whole")
    key = object.__new__(IAMUserAccessKey)
    key.account_id, key.partition, key._owner_user_name = self.current_account, self.partition, users[0].name
    policies = key.collect_policies()
    results = [
        {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision(policies, action, resource)}
        for action in actions
        for resource in self._get_param("ResourceArns", ["*"])
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


IAMRequestBase._create_aws_request, IAMPolicyStatement._check_element_matches = made_as_signed, matches_any_letters
IamResponse.simulate_principal_policy = simulate_principal_policy
Backend._add_secret, Backend.put_secret_value = add_with_milliseconds, put_once
Backend.list_secret_version_ids, Backend.rotate_secret = list_with_their_times, rotate
main(sys.argv[1:])
