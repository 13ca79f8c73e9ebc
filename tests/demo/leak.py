"""The second act: a scanner finds a database password in a repository, and it is rotated while its consumer goes on."""

import json, secrets, threading, time

from world import REPO, SERVERS, Failure, command, must

USER, PATH = "billing", "apps/billing"


class Consumer(threading.Thread):
    """A service that reads its password from Vault, and reads it again when it is refused."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.over = world, threading.Event()
        self.password, self.logins, self.refused, self.taken = None, 0, [], None

    def run(self):
        first = self.read()
        self.password = first
        while not self.over.wait(0.2):
            said = self.world.postgres.witness(USER, self.password)
            if said == "accepted":
                self.logins += 1
                if self.password != first and self.taken is None:
                    self.taken = time.time()
            else:
                self.refused.append(time.time())
                self.password = self.read()

    def read(self):
        return self.world.vault.call("GET", f"kv/data/{PATH}")["data"]["data"]["password"]

    def stop(self):
        self.over.set()
        self.join(30)


class Leak:
    """A password that stands where it should not."""

    def __init__(self, world):
        self.world = world
        self.urn = f"urn:curfew:cred:postgres-role:appdb:{USER}"
        self.repo = world.dir / "repo"
        self.consumer = Consumer(world)

    def plant(self):
        """Somebody commits a configuration with the password in it."""
        self.old = self.consumer.read()
        self.repo.mkdir()
        must("git", "init", "-q", self.repo)
        text = f"DB_HOST=db.example\nDB_USER={USER}\nDB_PASSWORD=\"{self.old}\"\n"
        self.commit("config/billing.env", text, "Configuration for billing")
        if self.world.postgres.witness(USER, self.old) != "accepted":
            raise Failure("the password does not work from the start")

    def commit(self, name, text, why):
        file = self.repo / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        git = ["git", "-C", self.repo, "-c", "user.name=Dev", "-c", "user.email=dev@example.org"]
        must(*git, "add", ".")
        must(*git, "commit", "-qm", why)

    def scan(self):
        """A real Gitleaks; its report goes in unchanged. Answers when it was published, and what it found."""
        home = must(SERVERS, "where", "gitleaks").strip()
        report = must(f"{home}/gitleaks", "git", "--no-banner", "--log-level", "error", "--exit-code", "0",
                      "--report-format", "json", "--report-path", "-", self.repo)
        found = json.loads(report)
        published = time.time()
        must(self.world.binary, "publish", "finding", "--from", "gitleaks", "--repository", "demo/billing",
             "--kafka", self.world.kafka, "--topic", "curfew.findings", "--config", self.world.config, "-",
             text=report, env=self.world.clean_env(), cwd=self.world.home)
        return published, found

    def case(self, urn=None):
        """The newest case about it, with its records."""
        lines = [line for line in self.world.cases()
                 if line["case"]["directive"]["credential"] == (urn or self.urn)]
        if not lines:
            return None
        newest = max(lines, key=lambda line: line["case"]["id"])
        code, output, _ = command(self.world.binary, "case", newest["case"]["id"], "--json", "--config",
                                  self.world.config, env=self.world.clean_env(), cwd=self.world.home)
        return json.loads(output) if code == 0 else None

    @staticmethod
    def moment(timeline, act):
        """When the step that does `act` was recorded as done, in seconds."""
        acts = []
        for _, at_ms, records in timeline["records"]:
            for record in records:
                if record["record"] == "planned":
                    acts = [step["act"] for step in record["plan"]["steps"]]
                if record["record"] in ("succeeded", "passed") and acts[record["step"]] == act:
                    return at_ms / 1000


def play(world, say):
    """The whole act; answers whether all of it came out as it should, and the repository."""
    leak = Leak(world)
    leak.plant()
    leak.consumer.start()
    say("\nSecond act: the password of the database user `billing` stands in a Git repository. A service uses it.")
    published, found = leak.scan()
    places = ", ".join(f"{one['File']}:{one['StartLine']} ({one['RuleID']})" for one in found)
    say(f"  Gitleaks found {len(found)}: {places}. Its report goes in as it is; the value stays outside.")
    deadline, timeline = time.monotonic() + 90, None
    while time.monotonic() < deadline:
        timeline = leak.case()
        state = timeline and timeline["line"]["verdict"]["state"]
        held = timeline and timeline["line"]["verdict"].get("by") == "observe"
        if state == "dead" or (world.observe and held):
            break
        time.sleep(0.25)
    if not timeline:
        say("  no case was opened within 90 s")
        leak.consumer.stop()
        return False, leak
    if not world.observe:
        until = time.monotonic() + 20
        while leak.consumer.taken is None and time.monotonic() < until:
            time.sleep(0.2)
    leak.consumer.stop()
    old, now = world.postgres.witness(USER, leak.old), world.postgres.witness(USER, leak.consumer.read())
    if world.observe:
        say(f"  held (observe): Curfew says that it would {timeline['line']['case']['directive']['action']} it; "
            f"the password {'still works' if old == 'accepted' else old}.")
        return held and old == "accepted", leak
    verdict, line = timeline["line"]["verdict"], []
    for what, at in (("contained", leak.moment(timeline, "disable")), ("new value promoted", leak.moment(timeline, "promote")),
                     ("consumer follows", leak.consumer.taken),
                     ("old value seen dead", (timeline["line"]["closed_ms"] or 0) / 1000)):
        line.append(f"{what} {at - published:.2f} s" if at else f"{what}: no")
    say("  from the finding: " + " · ".join(line))
    gap = len(leak.consumer.refused)
    say(f"  the service: {leak.consumer.logins} logins, {gap} refused in between, then with the new password")
    say(f"  the witness, past Curfew: the password in the repository is {old}; the one in Vault is {now}")
    say(f"  verdict: {verdict['state']}, level {verdict.get('level')}, {verdict.get('sightings')} sighting(s)"
        + (f", left: {'+'.join(verdict['residue'])}" if verdict.get("residue") else ""))
    say(f"  look further: curfew case {timeline['line']['case']['id']}")
    good = verdict["state"] == "dead" and old == "refused" and now == "accepted" and leak.consumer.taken is not None
    return good, leak


def prepare(world):
    """What the act needs of PostgreSQL and Vault, before Curfew starts."""
    password = secrets.token_urlsafe(24)
    quiet = "SET log_statement = 'none'; SET log_min_error_statement = 'panic';\n"
    admin = f"GRANT {USER} TO curfew_fence WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;" if world.postgres.version() >= 16 else ""
    world.postgres.root(quiet + f"CREATE ROLE {USER} LOGIN PASSWORD '{password}'; {admin} GRANT SELECT ON orders TO {USER};")
    vault = world.vault
    vault.call("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
    until = time.monotonic() + 30
    while True:
        try:  # the engine upgrades itself in the background
            vault.call("POST", f"kv/data/{PATH}", {"data": {"username": USER, "password": password}})
            break
        except Failure:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    for name, old, new, more in (("kv-store", "app/database", PATH, ""), ("kv-store", "app/database", "apps/reports", "-reports"),
                                 ("kv-inventory", "app/*", "apps/*", "")):
        policy = (REPO / f"deploy/vault/{name}.hcl").read_text().replace(old, new)
        vault.call("PUT", f"sys/policies/acl/curfew-{name}{more}", {"policy": policy})
