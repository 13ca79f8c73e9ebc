"""The DAG of the test with a real Airflow: tasks take database credentials from Vault, and end in all the ways they can.

What a task gets it writes below $STORY, where the test reads it, and registers with Curfew for its own run before it uses it.
"""

import datetime, json, os, pathlib, signal, subprocess, time, urllib.request

from airflow.providers.openlineage.plugins.macros import lineage_run_id
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, get_current_context, task

HOME = pathlib.Path(os.environ["STORY"])
SOURCE = "/openlineage/" + os.environ["AIRFLOW__OPENLINEAGE__NAMESPACE"]


def take():
    """A credential of its own, and Curfew has heard of it."""
    instance = get_current_context()["ti"]
    run = f"{SOURCE}:{lineage_run_id(instance)}"
    request = urllib.request.Request(f"{os.environ['STORY_VAULT']}/v1/{os.environ['STORY_ROLE']}",
                                     headers={"X-Vault-Token": (HOME / "task.token").read_text()})
    with urllib.request.urlopen(request) as answer:
        made = json.load(answer)
    got = {"run": run, "lease": made["lease_id"], **made["data"]}
    name = f"{instance.task_id}-{instance.try_number}"
    (HOME / f"{name}.taking").write_text(json.dumps(got))
    event = {"specversion": "1.0", "type": "dev.curfew.grant.registered.v1", "source": "/airflow", "id": f"{run}:{name}",
             "data": {"run_key": run, "cred_id": f"urn:curfew:cred:vault-lease:test:{made['lease_id']}",
                      "principal": made["data"]["username"]}}
    subprocess.run([os.environ["STORY_CURFEW"], "publish", "--kafka", os.environ["STORY_KAFKA"],
                    "--topic", os.environ["STORY_GRANTS"], "-"], input=json.dumps(event), text=True, check=True)
    (HOME / f"{name}.taking").rename(HOME / f"{name}.json")


def seen_working(name):
    """Waits until the test has logged in with it."""
    until = time.monotonic() + 120
    while not (HOME / f"{name}.seen").exists():
        if time.monotonic() > until:
            raise TimeoutError(name)
        time.sleep(0.1)


@dag(dag_id="story", schedule=None, start_date=datetime.datetime(2026, 1, 1), catchup=False)
def story():
    @task
    def succeeds():
        take()
        seen_working("succeeds-1")

    @task(retries=1, retry_delay=datetime.timedelta(seconds=1))
    def retries():
        take()
        raise RuntimeError("as it was told to")

    @task
    def killed():
        take()
        seen_working("killed-1")
        os.kill(os.getpid(), signal.SIGKILL)

    # As docs/tasks.md says.
    BashOperator(task_id="commanded", append_env=True, bash_command=(
        "VAULT_TOKEN=$(cat $STORY/task.token) VAULT_ADDR=$STORY_VAULT "
        "$STORY_CURFEW exec --kafka $STORY_KAFKA --topic $STORY_GRANTS "
        f"--source {SOURCE} --run '{{{{ macros.OpenLineageProviderPlugin.lineage_run_id(task_instance) }}}}' "
        "--role DB=$STORY_ROLE -- "
        """sh -c 'printf "{\\"username\\": \\"%s\\", \\"password\\": \\"%s\\"}" "$DB_USERNAME" "$DB_PASSWORD" """
        """> $STORY/commanded-1.json; for n in $(seq 1200); do [ -e $STORY/commanded-1.seen ] && exit; sleep 0.1; done'"""))
    succeeds(), retries(), killed()


story()
