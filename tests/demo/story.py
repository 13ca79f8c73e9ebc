"""The tasks: what they hold, what they tell Curfew, and how each of them ends."""

import json, secrets, subprocess, threading, time, urllib.parse, uuid
from datetime import datetime, timezone

from world import CHILDREN, Failure, ROLES, Session


def rfc3339(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Credential:
    """One database credential from Vault. The password is in memory only."""

    def __init__(self, world, role, urn, user, password):
        self.role, self.urn, self.user, self.password = role, urn, user, password
        self.short = f"{role}/{urllib.parse.unquote(urn).rsplit('/', 1)[1][:6]}"
        self.before = world.postgres.witness(user, password)
        self.after = None
        self.tasks, self.how, self.session = [], "", None

    @classmethod
    def take(cls, world, role):
        answer = world.vault.call("GET", f"database/creds/{role}")
        urn = "urn:curfew:cred:vault-lease:demo:" + urllib.parse.quote(answer["lease_id"], safe="/-._~")
        return cls(world, role, urn, answer["data"]["username"], answer["data"]["password"])

    def grant(self):
        return {"cred_id": self.urn, "tenure": "minted", "principal": self.user}


class Task:
    """One run of an agent, a CI job or a batch job."""

    def __init__(self, kind, name, credential=None, how="", life=600.0, heartbeat_ms=None):
        self.kind, self.name, self.credential = kind, name, credential
        self.source, self.run = f"/schedulers/{kind}", f"{name}-{secrets.token_hex(3)}"
        self.life, self.heartbeat_ms = life, heartbeat_ms
        self.started, self.ended, self.beats = time.time(), None, heartbeat_ms is not None
        if credential:
            credential.tasks.append(self)
            credential.how = credential.how or how

    def event(self, kind, data):
        return {"specversion": "1.0", "id": str(uuid.uuid4()), "source": self.source,
                "type": f"dev.curfew.task.{kind}.v1", "subject": f"{self.source}:{self.run}",
                "time": rfc3339(time.time()), "datacontenttype": "application/json",
                "data": {"run_id": self.run, **data}}

    def start(self):
        data = {"task": self.name, "attempt": 1, "workload_id": f"spiffe://demo/{self.kind}/{self.name}",
                "started_at": rfc3339(self.started), "deadline": rfc3339(self.started + self.life),
                "grants": [self.credential.grant()] if self.credential else []}
        if self.heartbeat_ms:
            data["heartbeat_interval_ms"] = self.heartbeat_ms
        return self.event("started", data)

    def beat(self):
        return self.event("heartbeat", {})

    def end(self, outcome="success"):
        self.ended = self.ended or time.time()
        self.beats = False
        return self.event("ended", {"task": self.name, "attempt": 1, "outcome": outcome,
                                    "ended_at": rfc3339(self.ended)})


class Dag(Task):
    """A try of an Airflow task, say: the scheduler tells of it in OpenLineage, and whoever hands out the credential says
    which run has it."""

    def __init__(self, name, credential, how):
        super().__init__("dag", name, credential, how)
        self.source, self.run = "/openlineage/demo", str(uuid.uuid4())

    def says(self, kind):
        return {"eventType": kind, "eventTime": rfc3339(time.time()), "producer": "https://example.test/scheduler",
                "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
                "run": {"runId": self.run, "facets": {}}, "job": {"namespace": "demo", "name": self.name},
                "inputs": [], "outputs": []}

    def granted(self):
        event = Task("broker", "grants").event("started", {})
        return event | {"type": "dev.curfew.grant.registered.v1", "source": "/broker",
                        "data": {"run_key": f"{self.source}:{self.run}", **self.credential.grant()}}


class Exec:
    """A command that has its credential from `curfew exec`, and knows nothing of Vault or Curfew."""

    COMMAND = ("umask 077; printf '%s\\n%s\\n' \"$DB_USERNAME\" \"$DB_PASSWORD\" > got.tmp; mv got.tmp got; "
               "while [ ! -e go ]; do sleep 0.1; done")

    def __init__(self, world, name, how):
        self.world, self.name, self.folder = world, name, world.home / name
        self.folder.mkdir(mode=0o700)
        env = world.clean_env() | {"VAULT_ADDR": world.vault.address, "VAULT_TOKEN": world.vault.orphan("curfew-exec"),
                                   "CURFEW_CONFIG": str(world.config)}
        role = f"DB=database/creds/{ROLES['batch']}"
        self.errors = open(self.folder / "errors", "wb")
        self.process = subprocess.Popen(
            [str(world.binary), "exec", "--kafka", world.kafka, "--realm", "demo", "--task", name, "--ttl", "10m",
             "--role", role, "--", "sh", "-c", self.COMMAND], cwd=self.folder, env=env, stdin=subprocess.DEVNULL,
            stdout=self.errors, stderr=self.errors, start_new_session=True)
        CHILDREN.add(self.process)
        self.until((self.folder / "got").exists)
        user, password = (self.folder / "got").read_text().split()
        (self.folder / "got").unlink()
        holds = lambda: [held for line in world.tasks() if line["task"]["name"] == name for held in line["holds"]]
        self.until(holds)
        self.credential = Credential(world, ROLES["batch"], holds()[0]["grant"]["credential"], user, password)
        self.credential.tasks.append(self)
        self.credential.how = how

    def until(self, there):
        deadline = time.monotonic() + 60
        while not there():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"curfew exec: {(self.folder / 'errors').read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def end(self):
        (self.folder / "go").touch()
        code = self.process.wait(60)
        CHILDREN.discard(self.process)
        self.errors.close()
        if code:
            raise Failure(f"curfew exec ended with {code}: {(self.folder / 'errors').read_text(errors='replace')[-2000:]}")


class Heart(threading.Thread):
    """Heartbeats of everything that lives, once a second."""

    def __init__(self, world, tasks):
        super().__init__(daemon=True)
        self.world, self.tasks, self.over, self.failure = world, tasks, threading.Event(), None

    def run(self):
        while not self.over.wait(1.0):
            try:
                living = [task.beat() for task in self.tasks if task.beats]
                if living:
                    self.world.publish(living)
            except Exception as failure:  # told by whoever watches
                self.failure = failure
                return

    def stop(self):
        self.over.set()
        self.join(60)


class Story:
    """Takes the credentials, then ends the tasks one way after the other. `watch(what, until)` redraws meanwhile."""

    SEALED = 5.0  # seconds of each outage
    DEADLINE = 7.0
    HEARTBEAT_MS = 1500

    def __init__(self, world):
        self.world = world
        take = lambda kind: Credential.take(world, ROLES[kind])
        beat = self.HEARTBEAT_MS
        self.etl = Task("batch", "etl-load", take("batch"), "ends normally")
        self.review = Task("agent", "review-bot", take("agent"), "end sent twice", heartbeat_ms=beat)
        self.coder = Task("agent", "coder", take("agent"), "ends, a session stays open")
        self.early = Task("ci", "lint", take("ci"), "end arrives before the start")
        self.build = Task("ci", "build", take("ci"), f"killed: deadline after {self.DEADLINE:.0f} s", life=self.DEADLINE)
        self.triage = Task("agent", "triage", take("agent"), "killed: heartbeats stop", heartbeat_ms=beat)
        self.report = Task("batch", "report", take("batch"), "ends while Vault is sealed")
        self.deploy = Task("ci", "deploy", take("ci"), "ends while PostgreSQL is down")
        shared = take("batch")
        self.map = Task("batch", "map", shared, "shared: dies with its second task")
        self.reduce = Task("batch", "reduce", shared)
        # They hold nothing, and live on: one silent task among many is dead, a scheduler silent as a whole is not.
        self.others = [Task("agent", f"idle-{n}", heartbeat_ms=beat) for n in range(1, 7)]
        self.dag = Dag("dag-load", take("batch"), "told by OpenLineage")
        # What it holds ends with it at Vault as well: where nothing may have an effect, it does not run.
        self.exec = None if world.observe else Exec(world, "psql", "has it from `curfew exec`")
        self.tasks = [self.etl, self.review, self.coder, self.early, self.build, self.triage, self.report, self.deploy,
                      self.map, self.reduce, *self.others]
        everyone = [*self.tasks, self.dag, *filter(None, [self.exec])]
        self.credentials = list(dict.fromkeys(task.credential for task in everyone if task.credential))
        self.heart = Heart(world, self.tasks)

    def play(self, watch, settled):
        """`settled(credentials)`: Curfew said its word on all of them."""
        world = self.world
        self.coder.credential.session = Session(world.postgres, self.coder.credential.user, self.coder.credential.password)
        now = time.time()
        for task in self.tasks:
            task.started = now
        world.publish([task.start() for task in self.tasks if task is not self.early] + [self.dag.granted()])
        world.lineage([self.dag.says("START")])
        self.heart.start()
        watch("tasks run, each with a database credential from Vault", lambda: time.time() > now + 2, 10)

        self.triage.beats = False  # killed
        again = self.review.end()
        world.publish([self.etl.end(), again, self.coder.end(), self.early.end("failure"), self.map.end()])
        world.publish([again, self.review.end()])  # the same event again, and a second one of its own
        time.sleep(1)
        world.publish([self.early.start()])
        world.lineage([self.dag.says("COMPLETE")])
        if self.exec:
            self.exec.end()
        wave = [*filter(None, [self.exec]), self.dag, self.etl, self.review, self.coder, self.early, self.build, self.triage]
        watch("tasks end; one start is late, two tasks were killed", lambda: settled([t.credential for t in wave]), 90)
        coder = self.coder.credential
        coder.session_after = coder.session.works()

        world.vault.seal()
        try:
            world.publish([self.report.end()])
            sealed = time.time()
            watch("Vault is sealed, and a task ends", lambda: time.time() > sealed + self.SEALED, 30)
        finally:
            world.vault.unseal()
        watch("Vault is open again", lambda: settled([self.report.credential]), 120)

        world.servers("stop", "postgres")
        try:
            world.publish([self.deploy.end()])
            down = time.time()
            watch("PostgreSQL is down, and a task ends", lambda: time.time() > down + self.SEALED, 30)
        finally:
            world.servers("start", "postgres")
        watch("PostgreSQL is back", lambda: settled([self.deploy.credential]), 120)

        shared = self.map.credential
        self.shared_lived = world.postgres.witness(shared.user, shared.password)
        world.publish([self.reduce.end()])
        watch("the second task of the shared credential ends", lambda: settled([shared]), 60)
        self.heart.stop()
        world.publish([task.end() for task in self.others])

    def testify(self):
        """Each task tries its own old credential at PostgreSQL itself: nothing of Curfew takes part."""
        self.control = self.world.postgres.root("SELECT 1;").strip() == "1"
        for one in self.credentials:
            one.after = self.world.postgres.witness(one.user, one.password)
