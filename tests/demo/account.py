"""What an administrator does at moto. Run by the Python that has moto, and so boto3:

  account.py make ENDPOINT       the administrator, Curfew's two logins and a user of a pipeline; says their keys as JSON
  account.py keys ENDPOINT USER  the ids of the user's keys, and whether each lets in (logs in as the environment says)
"""

import json, sys
from pathlib import Path

import boto3

POLICIES = Path(__file__).resolve().parents[2] / "deploy/aws"
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def iam(endpoint, key=None):
    own = {"aws_access_key_id": key[0], "aws_secret_access_key": key[1]} if key else {}
    return boto3.client("iam", endpoint_url=endpoint, region_name="eu-west-1", **own)


def policy(name):
    """As in `deploy/aws`, for all: moto asks of IAM's calls whether they may be made at all, not of whom."""
    text = json.loads((POLICIES / name).read_text())
    for statement in text["Statement"]:
        statement["Resource"] = "*"
    return text


def user(client, path, name, *policies):
    client.create_user(Path=path, UserName=name)
    made = client.create_access_key(UserName=name)["AccessKey"]
    for at, text in enumerate(policies):
        # Without blanks: moto writes a form anew to check its signature, and its blanks otherwise than they were signed.
        document = json.dumps(text, separators=(",", ":"))
        client.put_user_policy(UserName=name, PolicyName=f"own{at}", PolicyDocument=document)
    return made["AccessKeyId"], made["SecretAccessKey"]


def make(endpoint):
    # The first three calls are asked nothing: they make the administrator.
    root = user(iam(endpoint, ("AKIANOBODYNOBODYNOBO", "nobody")), "/admin/", "root", ALL)
    admin = iam(endpoint, root)
    made = {"root": root,
            "own": user(admin, "/curfew/", "curfew", policy("curfew.json"), policy("rotates-keys.json")),
            "reader": user(admin, "/curfew/", "reader", policy("inventory.json")),
            "reports": user(admin, "/ci/", "reports")}
    print(json.dumps(made))


def keys(endpoint, name):
    listed = iam(endpoint).list_access_keys(UserName=name)["AccessKeyMetadata"]
    print(json.dumps({one["AccessKeyId"]: one["Status"] == "Active" for one in listed}))


if __name__ == "__main__":
    {"make": make, "keys": keys}[sys.argv[1]](*sys.argv[2:])
