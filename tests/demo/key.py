"""The third act: a scanner finds the id of an access key of AWS, and the key is contained and replaced. AWS is moto here."""

import json, os, subprocess, time

from world import CHILDREN, HERE, SERVERS, Failure, free_port, must, private

USER, PATH, TARGET = "reports", "apps/reports", "aws-demo"


class Account:
    """An account of AWS as far as moto has it, with its authorization on."""

    def __init__(self, world):
        self.world, self.urn = world, f"urn:curfew:cred:aws-user:{TARGET}:ci/{USER}"

    def start(self):
        world, port = self.world, free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.python = must(SERVERS, "where", "moto").strip() + "/bin/python"
        with open(world.dir / "moto.log", "wb") as log:
            self.moto = subprocess.Popen([self.python, str(SERVERS.parent / "moto/server.py"), "-H", "127.0.0.1", "-p",
                                          str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=world.dir,
                                         env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}, start_new_session=True)
        CHILDREN.add(self.moto)
        until = time.monotonic() + 60
        while b"Running on" not in (world.dir / "moto.log").read_bytes():
            if self.moto.poll() is not None or time.monotonic() > until:
                raise Failure(f"moto does not start: {world.dir}/moto.log")
            time.sleep(0.1)
        made = json.loads(must(self.python, HERE / "account.py", "make", self.endpoint))
        self.root, self.first = made["root"], made[USER]
        for name in ("own", "reader"):
            id, secret = made[name]
            private(world.home / f"{name}.aws", f"[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")

    def store(self):
        """Where the pipeline reads its key."""
        fields = {"access_key_id": self.first[0], "secret_access_key": self.first[1], "region": "eu-west-1"}
        self.world.vault.call("POST", f"kv/data/{PATH}", {"data": fields})

    def stored(self):
        return self.world.vault.call("GET", f"kv/data/{PATH}")["data"]["data"]

    def keys(self):
        """Past Curfew: the ids of the user's keys, and whether each lets in."""
        env = os.environ | {"AWS_ACCESS_KEY_ID": self.root[0], "AWS_SECRET_ACCESS_KEY": self.root[1]}
        return json.loads(must(self.python, HERE / "account.py", "keys", self.endpoint, USER, env=env))

    def config(self, mode):
        """What the configuration says of it: a target, and a rotation."""
        home = self.world.home
        return f"""  - name: {TARGET}
    mode: {mode}
    aws: {{account: "123456789012", region: eu-west-1, endpoint: "{self.endpoint}", credentials_file: {home}/own.aws,
      users: [ci/], inventory: {{credentials_file: {home}/reader.aws, every: 2s}}}}
""", f"""  - {{name: {USER}, target: {TARGET}, users: [ci/{USER}], environment: prod, owner: team-{USER},
     store: {{realm: demo, mount: kv, path: {PATH}, field: secret_access_key, user_field: access_key_id}}}}
"""


def play(world, say, leak):
    """The whole act; `leak` scans and reads cases as in the second one."""
    account = world.account
    say("\nThird act: an access key of AWS (moto) stands in the same repository. A pipeline reads it from Vault.")
    leak.commit("deploy/aws.ini", f"[default]\naws_access_key_id = \"{account.first[0]}\"\n", "Deploy to AWS")
    published, found = leak.scan()
    keys = [one for one in found if one["RuleID"] == "aws-access-token"]
    say(f"  Gitleaks found the id of {len(keys)} key: {', '.join(one['File'] for one in keys)}. Nobody knows more of it.")
    deadline, timeline = time.monotonic() + 120, None
    while time.monotonic() < deadline:
        timeline = leak.case(account.urn)
        verdict = timeline["line"]["verdict"] if timeline else {}
        if verdict.get("state") == "dead" or (world.observe and verdict.get("by") == "observe"):
            break
        time.sleep(0.25)
    if not timeline:
        say("  no case was opened within 120 s")
        return False
    now = account.keys()
    if world.observe:
        held = timeline["line"]["verdict"].get("by") == "observe"
        say(f"  held (observe): Curfew says that it would {timeline['line']['case']['directive']['action']} it; "
            f"the user's keys: {now}.")
        return held and now == {account.first[0]: True}
    line = []
    for what, act in (("disabled", "disable"), ("sessions denied", "end_sessions"), ("new key made and stored", "create"),
                      ("promoted", "promote")):
        at = leak.moment(timeline, act)
        line.append(f"{what} {at - published:.2f} s" if at else f"{what}: no")
    line.append(f"old key seen dead {(timeline['line']['closed_ms'] or 0) / 1000 - published:.2f} s (IAM may be late: four looks over 15 s)")
    say("  from the finding: " + " · ".join(line))
    verdict, stored = timeline["line"]["verdict"], account.stored()
    good = verdict.get("state") == "dead" and now == {stored["access_key_id"]: True} and stored["access_key_id"] != account.first[0]
    say(f"  the witness, past Curfew: the user has {len(now)} key, {'the one in Vault' if good else 'not the one in Vault'}; "
        f"the one in the repository {'is deleted' if account.first[0] not in now else 'is still there'}")
    say(f"  verdict: {verdict['state']}, level {verdict.get('level')}, {verdict.get('sightings')} sighting(s)"
        + (f", left: {'+'.join(verdict['residue'])}" if verdict.get("residue") else ""))
    say(f"  look further: curfew case {timeline['line']['case']['id']}")
    return good
