"""What the demo runs on: real servers, Vault's set-up, PostgreSQL's users, and Curfew itself."""

import contextlib, json, os, secrets, shlex, shutil, socket, subprocess, sys, tempfile, threading, time
import urllib.error, urllib.parse, urllib.request
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
SERVERS = REPO / "tests/servers/servers"
CACHE = Path(os.environ.get("CURFEW_CACHE")
             or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curfew").absolute()
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target").absolute()
ROLES = {"agent": "app-agent", "ci": "app-ci", "batch": "app-batch"}
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """Something the user has to know; printed without a traceback."""


def say(text=""):
    print(text, flush=True)


CHILDREN = set()  # at work right now; ended with the demo


@contextlib.contextmanager
def child(words, **options):
    """A process that never outlives the demo."""
    # A session of its own: Ctrl-C reaches the demo alone, which then ends everything in order.
    process = subprocess.Popen([str(word) for word in words], start_new_session=True, **options)
    CHILDREN.add(process)
    try:
        yield process
    finally:
        end(process)
        CHILDREN.discard(process)


def end(process, patience=20):
    """TERM, then KILL."""
    for ask in (process.terminate, process.kill):
        if process.poll() is None:
            ask()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)


def command(*words, text=None, timeout=60, **options):
    """Run to its end; answers (code, output, errors)."""
    with child(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
               errors="replace", **options) as process:
        try:
            output, errors = process.communicate(text, timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{words[0]} {words[1]} did not end within {timeout} s") from None
    return process.returncode, output, errors


def must(*words, **options):
    code, output, errors = command(*words, **options)
    if code != 0:
        raise Failure(f"{shlex.join(map(str, words[:3]))} … failed ({code}):\n{(errors or output)[-2000:]}")
    return output


def at_once(*tasks):
    """Run all, side by side; wait for all; then fail with the first failure."""
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        except BaseException:  # asked to end: do not wait for a compiler
            for process in list(CHILDREN):
                process.terminate()
            raise
    return [run.result() for run in running]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def private(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


# ----------------------------------------------------------------------------------------- set-up

def install(parts):
    """`servers install`, whose own lines say what it does."""
    with child([SERVERS, "install", *parts], stdin=subprocess.DEVNULL) as process:
        if process.wait() != 0:
            raise Failure("the servers could not be installed")


def build():
    """Compiles `curfew` with the dev profile, which is quick; answers the path of the binary."""
    install(["build"])
    began, seen, binary, said = time.monotonic(), 0, None, []
    with child(["cargo", "build", "--locked", "--bin", "curfew", "--message-format=json-render-diagnostics"],
               cwd=REPO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        def listen():
            nonlocal seen
            last = began
            for line in process.stderr:
                said.append(line)
                seen += line.lstrip().startswith(("Compiling", "Downloaded"))
                if seen and time.monotonic() - last > 15:
                    last = time.monotonic()
                    say(f"  curfew: compiling, {seen} crates so far ({last - began:.0f} s; once)")

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                binary = json.loads(line).get("executable") or binary
        code = process.wait()
        listener.join(5)
    if code != 0 or not binary:
        raise Failure("curfew does not compile:\n" + "".join(said[-30:]))
    say(f"  curfew: built ({time.monotonic() - began:.0f} s)")
    return Path(binary)


class Vault:
    """The demo's own hands at Vault: root, which Curfew never gets."""

    def __init__(self, env):
        self.address, self.token = env["CURFEW_TEST_VAULT_ADDR"], env["CURFEW_TEST_VAULT_TOKEN"]
        self.key, self.audit = env["CURFEW_TEST_VAULT_UNSEAL_KEY"], Path(env["CURFEW_TEST_VAULT_AUDIT"])

    def call(self, method, path, body=None):
        request = urllib.request.Request(f"{self.address}/v1/{path}", method=method,
                                         headers={"X-Vault-Token": self.token},
                                         data=None if body is None else json.dumps(body).encode())
        try:
            with NO_PROXY.open(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise Failure(f"Vault answered {error.code} to {method} {path}: {error.read()[:300]!r}") from None
        except OSError as error:
            raise Failure(f"Vault does not answer {method} {path}: {error}") from None

    def seal(self):
        self.call("PUT", "sys/seal", {})

    def unseal(self):
        self.call("PUT", "sys/unseal", {"key": self.key})
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(Failure):
                self.call("GET", "sys/health")
                return
            time.sleep(0.1)
        raise Failure("Vault stays sealed")

    def orphan(self, *policies):
        """An orphan: it does not die with whoever made it. Periodic: it lives for as long as it is renewed."""
        made = self.call("POST", "auth/token/create-orphan",
                         {"policies": policies, "period": "1h", "no_default_policy": True, "display_name": policies[0]})
        return made["auth"]["client_token"]

    def requests(self):
        """(path, policies) of each request that the audit log holds."""
        for line in self.audit.read_text().splitlines():
            entry = json.loads(line)
            if entry.get("type") == "request":
                yield entry["request"]["path"], entry.get("auth", {}).get("policies") or []


class Postgres:
    """PostgreSQL, seen by whoever has a user name and a password."""

    def __init__(self, env):
        url = urllib.parse.urlparse(env["CURFEW_TEST_POSTGRES"])
        self.port, self.admin, self.password = url.port, url.username, url.password
        self.log = Path(env["CURFEW_TEST_PG_LOG"])
        own = Path(env["CURFEW_TEST_PG_BIN"]) / "psql"
        self.psql = own if own.exists() else Path(shutil.which("psql") or "/usr/bin/psql")

    def words(self, user, database):
        return [self.psql, "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1",
                "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database]

    def env(self, password):
        # Never on a command line, which everybody on the machine can read.
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"}

    def root(self, sql, database="app"):
        return must(*self.words(self.admin, database), text=sql, env=self.env(self.password))

    def witness(self, user, password):
        """`accepted`, `refused`, or `unknown` where the answer is neither (a server that is down refuses nobody)."""
        code, output, errors = command(*self.words(user, "app"), text="SELECT count(*) FROM orders;",
                                       env=self.env(password))
        if code == 0:
            return "accepted"
        clear = "password authentication failed" in errors or "is not permitted to log in" in errors
        return "refused" if clear else "unknown"

    def version(self):
        return int(self.root("SHOW server_version_num;").strip()) // 10000

    def changes_since(self, mark):
        """Statements that ended or fenced a role, as PostgreSQL's own log has them."""
        text = self.log.read_bytes()[mark:].decode(errors="replace")
        return [line for line in text.splitlines() if "statement: " in line or "execute " in line
                if "DROP ROLE" in line or "NOLOGIN" in line]


class Session:
    """A connection that stays open, as a task that was killed leaves one behind."""

    def __init__(self, postgres, user, password):
        self.process = subprocess.Popen(list(map(str, postgres.words(user, "app"))), env=postgres.env(password),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, start_new_session=True)
        CHILDREN.add(self.process)
        if not self.works():
            raise Failure("the task's own session does not work")

    def works(self):
        try:
            self.process.stdin.write("SELECT 'here';\n")
            self.process.stdin.flush()
            return self.process.stdout.readline().strip() == "here"
        except OSError:
            return False


class World:
    """Everything that the demo starts; `close` ends it."""

    def __init__(self, observe, binary):
        self.observe, self.binary = observe, binary
        self.dir = Path(tempfile.mkdtemp(prefix="curfew-demo-", dir="/tmp"))
        self.home = self.dir / "curfew"
        self.curfew = None
        self.vault = None

    # -- start

    def start(self):
        began = time.monotonic()
        say("Setting up (what is missing is installed once, into " + str(CACHE) + "):")

        def servers():
            install(["kafka", "vault", "postgres", "gitleaks", "moto"])
            at = time.monotonic()
            must(SERVERS, "start", self.dir, "kafka", "vault", "postgres", timeout=600)
            say(f"  Kafka, Vault, PostgreSQL: running ({time.monotonic() - at:.0f} s)")
            self.configure()

        def curfew():
            if not self.binary:
                self.binary = build()

        at_once(servers, curfew)
        self.start_curfew()
        say(f"Ready after {time.monotonic() - began:.0f} s.")

    def configure(self):
        at = time.monotonic()
        self.env = {}
        for line in (self.dir / "env").read_text().splitlines():
            key, value = line.split("=", 1)
            self.env[key] = shlex.split(value)[0]
        self.kafka, self.vault, self.postgres = self.env["CURFEW_TEST_KAFKA"], Vault(self.env), Postgres(self.env)
        self.home.mkdir(mode=0o700)
        from key import Account  # it takes from here what it needs
        self.account = Account(self)
        at_once(self.make_topics, self.make_database, self.account.start)
        self.account.store()
        say(f"  topics, database users, Vault's database engine and policies, users of AWS: made ({time.monotonic() - at:.0f} s)")

    def java(self, *words):
        # The folder that `servers` made: named by version and by a digest.
        jars = max(CACHE.glob("kafka-*/lib"), key=lambda path: path.stat().st_mtime)
        return ["java", "-cp", f"{jars}/*", f"-Dlog4j2.configurationFile={SERVERS.parent}/kafka/log4j2.properties",
                HERE / "Topics.java", words[0], self.kafka, *words[1:]]

    def topics(self, *words, timeout=120):
        return must(*self.java(*words), timeout=timeout)

    def make_topics(self):
        self.topics("create", "curfew.tasks", "openlineage.events", "curfew.findings", "curfew.outcomes", "curfew.rotated",
                    "curfew.rejected")
        # The scheduler that speaks OpenLineage: it lives as long as the demo, as a scheduler does.
        self.scheduler = subprocess.Popen([str(word) for word in self.java("write", "openlineage.events")], text=True,
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        CHILDREN.add(self.scheduler)
        self.heard("ready")

    def heard(self, word):
        if (said := self.scheduler.stdout.readline().strip()) != word:
            raise Failure(f"the scheduler that speaks OpenLineage said {said!r} and not {word!r}")

    def make_database(self):
        issuer, fence = secrets.token_hex(16), secrets.token_hex(16)
        # The passwords stay out of the server's log. Vault's user makes and drops users; Curfew's only forbids
        # logins, looks at sessions and ends them.
        quiet = "SET log_statement = 'none'; SET log_min_error_statement = 'panic';\n"
        self.postgres.root(quiet + f"""
            CREATE ROLE vault_issuer LOGIN CREATEROLE PASSWORD '{issuer}';
            CREATE ROLE curfew_fence LOGIN CREATEROLE PASSWORD '{fence}' IN ROLE pg_signal_backend, pg_read_all_stats;
            CREATE DATABASE app OWNER vault_issuer;""", "postgres")
        self.postgres.root("SET ROLE vault_issuer; CREATE TABLE orders AS SELECT generate_series(1, 100) AS id;")
        private(self.home / "appdb.url", f"postgres://curfew_fence:{fence}@127.0.0.1:{self.postgres.port}/app\n")
        create = ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
                  "GRANT SELECT ON orders TO \"{{name}}\""]
        if self.postgres.version() >= 16:  # there, CREATEROLE alone no longer reaches other people's roles
            create.append("GRANT \"{{name}}\" TO curfew_fence WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        vault = self.vault
        vault.call("POST", "sys/mounts/database", {"type": "database"})
        vault.call("POST", "database/config/appdb", {
            "plugin_name": "postgresql-database-plugin", "allowed_roles": ",".join(ROLES.values()),
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{self.postgres.port}/app",
            "username": "vault_issuer", "password": issuer, "password_authentication": "scram-sha-256"})
        for role in ROLES.values():
            vault.call("POST", f"database/roles/{role}", {"db_name": "appdb", "creation_statements": create,
                                                          "default_ttl": "1h", "max_ttl": "24h"})
        for name in ("enforce", "reconcile"):
            policy = (REPO / f"deploy/vault/{name}.hcl").read_text()
            vault.call("PUT", f"sys/policies/acl/curfew-{name}", {"policy": policy})
        role = f"database/creds/{ROLES['batch']}"
        policy = (REPO / "deploy/vault/exec.hcl").read_text().replace("database/creds/ro", role)
        vault.call("PUT", "sys/policies/acl/curfew-exec", {"policy": policy})
        import agents, leak  # they need this module

        leak.prepare(self)
        agents.prepare(self)
        stores = ["kv-store", "kv-store-reports", "kv-store-shared", "kv-store-agents", "kv-store-courier", "approle-rotate"]
        for name, policies in (("enforce", ["enforce", *stores]), ("reconcile", ["reconcile"]),
                               ("inventory", ["kv-inventory"])):
            private(self.home / f"{name}.token", vault.orphan(*(f"curfew-{policy}" for policy in policies)))

    def start_curfew(self):
        at, metrics, status = time.monotonic(), free_port(), free_port()
        self.config, self.log = self.home / "curfew.yaml", self.home / "curfew.log"
        self.metrics, self.status = f"http://127.0.0.1:{metrics}", f"http://127.0.0.1:{status}/status"
        target, rotation = self.account.config("observe" if self.observe else "enforce")
        import agents

        moved, reach = agents.config(self)
        private(self.config, f"""\
journal: {{path: {self.home}/curfew.db}}
kafka: {{brokers: "{self.kafka}", group: curfew, properties: {{}}}}
topics:
  curfew.tasks: {{kinds: [vault-lease, vault-token, vault-secret-id], strongest: revoke,
    sources: [/schedulers/*, /exec, /broker], speaks_for: [/openlineage/demo]}}
  openlineage.events: {{format: openlineage, sources: [/openlineage/demo], kinds: [vault-lease], strongest: revoke}}
  curfew.findings: {{events: [finding.observed, finding.closed], kinds: [vault-lease, postgres-role, aws-user], strongest: contain}}
publish: {{outcomes: curfew.outcomes, states: curfew.outcomes, rotated: curfew.rotated, rejected: curfew.rejected}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
status: {{listen: "127.0.0.1:{status}"}}
realms:
  - name: demo
    mode: {"observe" if self.observe else "enforce"}
    vault: {{address: "{self.vault.address}", token_file: {self.home}/enforce.token}}
    allowed_prefixes: [database/creds/]
    targets: [{{prefix: database/creds/app, target: appdb}}]
    reconcile: {{token_file: {self.home}/reconcile.token, prefixes: [{{prefix: database/creds/, exclusive: false}}], tokens: false, every: 5s}}
targets:
  - {{name: appdb, mode: {"observe" if self.observe else "enforce"}, postgres: {{url_file: {self.home}/appdb.url}}}}
{target}rotations:
  - {{name: billing, target: appdb, roles: [billing], environment: prod, owner: team-billing,
     store: {{realm: demo, mount: kv, path: apps/billing, field: password}}}}
{rotation}{moved}{reach}inventory:
  - {{realm: demo, token_file: {self.home}/inventory.token, mount: kv, paths: [apps/], fields: [password, secret_access_key, secret_id], every: 2s}}
fingerprint: {{key_file: {self.home}/fingerprint.keys}}
policy:
  longest_life: 1h
  heartbeats_missed: 3
  grace: 1s
  findings: [{agents.RULES}{{when: {{environment: [prod]}}, then: contain}}, {{then: rollover}}]
limits: {{effects_per_minute: 600}}
""")
        must(self.binary, "fingerprint-key", self.home / "fingerprint.keys", env=self.clean_env(), cwd=self.home)
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self.curfew = subprocess.Popen([str(self.binary), "run", "--config", str(self.config)], cwd=self.home,
                                           env=self.clean_env(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           start_new_session=True)
        while not self.ready():
            if self.curfew.poll() is not None or time.monotonic() - at > 60:
                state = "is not ready after 60 s" if self.curfew.poll() is None else f"ended with {self.curfew.returncode}"
                raise Failure(f"curfew {state}:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)
        self.mark = self.postgres.log.stat().st_size
        say(f"  curfew run --config {self.config}: ready ({time.monotonic() - at:.1f} s)")
        say(f"  watch it in a browser: {self.status}")

    def ready(self):
        try:
            with NO_PROXY.open(f"{self.metrics}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    # -- use

    def clean_env(self):
        """Without VAULT_*, CURFEW_*: the configuration alone says what Curfew is."""
        return {key: value for key, value in os.environ.items() if not key.startswith(("VAULT_", "CURFEW_", "PG"))}

    def publish(self, events):
        lines = "".join(json.dumps(event) + "\n" for event in events)
        must(self.binary, "publish", "--kafka", self.kafka, "--topic", "curfew.tasks", "-", text=lines,
             env=self.clean_env(), cwd=self.home)

    def lineage(self, events):
        """As a scheduler with OpenLineage publishes them: to its own topic, in its own format."""
        for event in events:
            print(json.dumps(event), file=self.scheduler.stdin, flush=True)
            self.heard("sent")

    def tasks(self):
        return json.loads(must(self.binary, "tasks", "--json", "--config", self.config, env=self.clean_env(), cwd=self.home))

    def cases(self):
        """What `curfew cases` says; nothing while it cannot say."""
        code, output, errors = command(self.binary, "cases", "--closed", "--json", "--config", self.config,
                                       env=self.clean_env(), cwd=self.home)
        if self.curfew.poll() is not None:
            raise Failure(f"curfew ended with {self.curfew.returncode}:\n{self.log.read_text(errors='replace')[-3000:]}")
        if code != 0:
            self.last_error = errors.strip()
            return []
        answer = json.loads(output or "[]")
        return answer.get("cases", []) if isinstance(answer, dict) else answer

    def audit(self):
        return command(self.binary, "audit", "overrun", "--config", self.config, env=self.clean_env(), cwd=self.home)

    def servers(self, verb, *names):
        must(SERVERS, verb, self.dir, *names, timeout=180)

    # -- end

    def close(self):
        """Ends every process, keeps what holds no secret (journal, log, configuration), deletes the rest."""
        for process in list(CHILDREN):
            end(process, 5)
        if self.curfew:
            end(self.curfew)
        kept = None
        if (self.home / "curfew.db").exists():
            kept = TARGET / "demo"
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True, mode=0o700)
            for file in [*self.home.glob("curfew.db*"), self.log]:
                if file.is_file():
                    shutil.copy2(file, kept)
            private(kept / "curfew.yaml", self.config.read_text().replace(f"{self.home}/curfew.db", f"{kept}/curfew.db"))
        code = subprocess.run([SERVERS, "clean", self.dir], stdin=subprocess.DEVNULL, start_new_session=True).returncode
        if code != 0 and self.dir.exists():
            print(f"demo: {self.dir} could not be cleaned; it holds the servers' logs", file=sys.stderr)
        return kept
