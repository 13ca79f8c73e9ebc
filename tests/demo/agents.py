"""The fourth act: eight agents share one database user, and one agent reaches two trust zones. Each ends with what is its own."""

import json, secrets, threading, time, urllib.error, urllib.request

from world import NO_PROXY, REPO, Failure, Session, private

SHARED, PATH = "agents", "apps/agents"
NAMES = ("planner", "coder", "reviewer", "tester", "writer", "analyst", "scout", "clerk")
COURIER, URN = "courier", "urn:curfew:cred:vault-approle:demo:approle/courier"


class Agent(threading.Thread):
    """Works in one session after another, with what it reads in its place of Vault."""

    def __init__(self, world, name):
        super().__init__(daemon=True)
        self.world, self.name, self.over = world, name, threading.Event()
        self.user, self.session, self.done, self.lost, self.moved = None, None, 0, 0, None

    def read(self):
        return self.world.vault.call("GET", f"kv/data/agents/{self.name}")["data"]["data"]

    def run(self):
        while not self.over.wait(0.3):
            now = self.read()
            if now["username"] != self.user:
                before, self.session = self.session, Session(self.world.postgres, now["username"], now["password"])
                if before:
                    before.process.terminate()
                    self.moved = time.time()
                self.user = now["username"]
            if self.session.works():
                self.done += 1
            else:
                self.lost += 1
                self.user = None

    def stop(self):
        self.over.set()
        self.join(30)
        self.session.process.terminate()


class Courier(threading.Thread):
    """Logs in at Vault for each of its errands, and reads at the office."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.over, self.done, self.lost = world, threading.Event(), 0, 0
        call = world.vault.call
        self.login = {"role_id": call("GET", f"auth/approle/role/{COURIER}/role-id")["data"]["role_id"],
                      "secret_id": call("GET", f"kv/data/apps/{COURIER}")["data"]["data"]["secret_id"]}

    def reads(self, path):
        """Whether a new login of its own reads it."""
        address = self.world.vault.address
        ask = urllib.request.Request(f"{address}/v1/auth/approle/login", data=json.dumps(self.login).encode(), method="POST")
        with NO_PROXY.open(ask, timeout=30) as answer:
            token = json.loads(answer.read())["auth"]["client_token"]
        try:
            with NO_PROXY.open(urllib.request.Request(f"{address}/v1/{path}", headers={"X-Vault-Token": token}), timeout=30):
                return True
        except urllib.error.HTTPError as error:
            if error.code == 403:
                return False
            raise Failure(f"Vault answered {error.code} to the courier") from None

    def run(self):
        while not self.over.wait(0.3):
            if self.reads("kv/data/office/plan"):
                self.done += 1
            else:
                self.lost += 1

    def stop(self):
        self.over.set()
        self.join(30)


def prepare(world):
    """What the act needs of PostgreSQL and Vault, before Curfew starts."""
    world.shared, maker = secrets.token_urlsafe(24), secrets.token_hex(16)
    quiet = "SET log_statement = 'none'; SET log_min_error_statement = 'panic';\n"
    make = f"""CREATE ROLE {SHARED} LOGIN PASSWORD '{world.shared}'; GRANT SELECT ON orders TO {SHARED};
        CREATE ROLE curfew_reduce LOGIN CREATEROLE PASSWORD '{maker}' IN ROLE vault_issuer;"""
    if world.postgres.version() >= 16:  # there, only who makes a role may alter it
        mine = "TO curfew_fence WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;"
        make += f"GRANT {SHARED} {mine}" + "".join(f"CREATE ROLE agent_{name}; GRANT agent_{name} {mine}" for name in NAMES)
    world.postgres.root(quiet + make)
    private(world.home / "reduce.url", f"postgres://curfew_reduce:{maker}@127.0.0.1:{world.postgres.port}/app\n")
    vault = world.vault
    for path in (PATH, *(f"agents/{name}" for name in NAMES)):
        vault.call("POST", f"kv/data/{path}", {"data": {"username": SHARED, "password": world.shared}})
    for name, zone in (("office", "office/plan"), ("cards", "pci/cards")):
        vault.call("POST", f"kv/data/{zone}", {"data": {"text": name}})
        vault.call("PUT", f"sys/policies/acl/demo-{name}", {"policy": f'path "kv/data/{zone}" {{ capabilities = ["read"] }}'})
    vault.call("POST", "sys/auth/approle", {"type": "approle"})
    vault.call("POST", f"auth/approle/role/{COURIER}", {"token_policies": ["demo-cards", "demo-office"], "token_ttl": "1m"})
    made = vault.call("POST", f"auth/approle/role/{COURIER}/secret-id", {})["data"]["secret_id"]
    vault.call("POST", f"kv/data/apps/{COURIER}", {"data": {"secret_id": made}})
    for name, old, new, more in (("kv-store", "app/database", PATH, "-shared"), ("kv-store", "app/database", "agents/+", "-agents"),
                                 ("kv-store", "app/database", f"apps/{COURIER}", "-courier"),
                                 ("approle-rotate", "role/billing", f"role/{COURIER}", ""), ("reduce", "role/etl", f"role/{COURIER}", ""), ("reach", "", "", "")):
        policy = (REPO / f"deploy/vault/{name}.hcl").read_text()
        policy = policy.replace(old, new) if old else policy
        vault.call("PUT", f"sys/policies/acl/curfew-{name}{more}", {"policy": policy})
    for name in ("reduce", "reach"):
        private(world.home / f"{name}.token", vault.orphan(f"curfew-{name}"))
    declare(world, [])


def declare(world, agents):
    """What people say of zones, and of who works as whom."""
    (world.home / "inventory.yaml").write_text(json.dumps({
        "zones": [{"name": "pci", "weight": 10}, {"name": "office"}],
        "targets": [{"name": "payments", "zone": "pci", "opened_by": ["demo/kv/pci/cards"]},
                    {"name": "wiki", "zone": "office", "opened_by": ["demo/kv/office/plan"]}],
        "identities": [{"id": f"identity:demo/approle/{COURIER}", "owner": "team-post", "may": {"zones": ["office"]}}] if agents else [],
        "agents": [{"name": name, "owner": "team-ai", "as": [f"urn:curfew:cred:postgres-role:appdb:{SHARED}"]} for name in agents],
    }))


def config(world):
    """What the configuration says of it: rotations, and the rest."""
    home = world.home
    split = ", ".join(f"{{agent: {name}, rotation: {name}}}" for name in NAMES)
    rotations = f"""  - {{name: {SHARED}, target: appdb, roles: [{SHARED}], adopt_within: 2m, split: [{split}],
     store: {{realm: demo, mount: kv, path: {PATH}, field: password, user_field: username}}}}
  - {{name: {COURIER}, approle: {{realm: demo, role: {COURIER}}}, store: {{realm: demo, mount: kv, path: apps/{COURIER}, field: secret_id}}}}
""" + "".join(f"  - {{name: {name}, target: appdb, roles: [agent_{name}], adopt_within: 2m, "
              f"store: {{realm: demo, mount: kv, path: agents/{name}, field: password, user_field: username}}}}\n" for name in NAMES)
    return rotations, f"""reductions:
  - {{system: appdb, identities: ["agent_*"], url_file: {home}/reduce.url}}
  - {{system: demo, identities: [approle/{COURIER}], token_file: {home}/reduce.token}}
reach:
  every: 2s
  declared: {home}/inventory.yaml
  vaults: [{{realm: demo, token_file: {home}/reach.token}}]
  finds: {{sorts: [shared, beyond], strongest: split}}
"""


RULES = '{when: {detector: ["curfew:shared"]}, then: split}, {when: {detector: ["curfew:beyond"]}, then: reduce}, '


def play(world, say, leak):
    """The whole act; `leak` reads cases as in the second one."""
    urn = f"urn:curfew:cred:postgres-role:appdb:{SHARED}"
    say(f"\nFourth act: {len(NAMES)} agents work as the one database user `{SHARED}`; a courier's AppRole opens two trust zones.")
    agents, courier = [Agent(world, name) for name in NAMES], Courier(world)
    for one in (*agents, courier):
        one.start()
    until = time.monotonic() + 30
    while not all(one.done for one in (*agents, courier)):
        if time.monotonic() > until:
            raise Failure("the agents do not work from the start")
        time.sleep(0.1)
    before = courier.reads("kv/data/pci/cards")
    declare(world, NAMES)
    began, moved, cases = time.time(), set(), {}
    say("  somebody declares who works as whom, and that the courier has its business at the office alone")
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        cases = {what: leak.case(one) for what, one in (("shared", urn), ("courier", URN))}
        for one in agents:
            if one.moved and one.name not in moved:
                moved.add(one.name)
                say(f"  {one.moved - began:5.1f} s  {one.name} works as {one.user}")
        states = {what: (case or {}).get("line", {}).get("verdict", {}) for what, case in cases.items()}
        if world.observe and all(state.get("by") == "observe" for state in states.values()):
            break
        if states["shared"].get("state") == "dead" and states["courier"].get("state") == "reduced":
            break
        time.sleep(0.25)
    for one in (*agents, courier):
        one.stop()
    if not all(cases.values()):
        say(f"  no case was opened for: {', '.join(what for what, case in cases.items() if not case)}")
        return False
    old, office, cards = world.postgres.witness(SHARED, world.shared), courier.reads("kv/data/office/plan"), courier.reads("kv/data/pci/cards")
    if world.observe:
        said = {what: case["line"]["case"]["directive"]["action"] for what, case in cases.items()}
        say(f"  held (observe): Curfew says that it would {said['shared']} the one and {said['courier']} the other; both are as they were")
        return old == "accepted" and office and cards and not moved and all(s.get("by") == "observe" for s in states.values())
    users = {one.user for one in agents}
    tried = [world.postgres.witness(now["username"], now["password"]) for now in map(Agent.read, agents)]
    lost = sum(one.lost for one in agents)
    say(f"  {(cases['shared']['line']['closed_ms'] or 0) / 1000 - began:5.1f} s  the shared user was seen dead" if
        states["shared"].get("state") == "dead" else "  the shared user was NOT seen dead")
    say(f"  the witness, past Curfew: {len(users)} users for {len(NAMES)} agents, {tried.count('accepted')} let in; "
        f"the shared password is {old}; {sum(one.done for one in agents)} pieces of work, {lost} lost")
    say(f"  the courier: cards before {'readable' if before else 'NOT readable'}, now {'READABLE' if cards else 'denied'}; "
        f"the office {'readable' if office else 'DENIED'}; {courier.done} errands, {courier.lost} lost")
    for what, case in cases.items():
        verdict = case["line"]["verdict"]
        say(f"  {what}: {verdict['state']}" + (f", left: {'+'.join(verdict['residue'])}" if verdict.get("residue") else "")
            + f"; curfew case {case['line']['case']['id']}")
    good = len(users) == len(NAMES) == tried.count("accepted") and old == "refused" and not lost
    return good and before and office and not cards and not courier.lost and states["courier"].get("state") == "reduced"
