#!/usr/bin/env python3
"""Revokes the Vault token of each task that ended: the worker as teams write it today.

One consumer, one event at a time. The token is looked up, revoked, and looked up again; then the offset is committed,
so a crash repeats the event instead of losing it. Both libraries as they come: hvac keeps its connection to Vault
open, and confluent-kafka fetches ahead. What has no answer yet is tried again, and holds up what comes after it.

  KAFKA_BROKERS, KAFKA_TOPIC, KAFKA_GROUP, VAULT_ADDR, VAULT_TOKEN: where it works, from the environment.
"""

import json, logging, os, time
from urllib.parse import unquote

import hvac
import requests
from confluent_kafka import Consumer, KafkaException

TOKENS = "urn:curfew:cred:vault-token:"
log = logging.getLogger("revoker")


def is_alive(vault, accessor):
    try:
        vault.auth.token.lookup_accessor(accessor)
        return True
    except hvac.exceptions.VaultError as error:
        if "invalid accessor" not in str(error):
            raise
        return False


def revoke(vault, accessor):
    if not is_alive(vault, accessor):
        log.info("already gone %s", accessor)
        return
    vault.auth.token.revoke_accessor(accessor)
    if is_alive(vault, accessor):
        raise hvac.exceptions.VaultError(f"{accessor} is still alive")
    log.info("revoked %s", accessor)


def handle(vault, event):
    if event["type"] != "dev.curfew.task.ended.v1":
        return
    for grant in event["data"]["grants"]:
        if grant["cred_id"].startswith(TOKENS):
            revoke(vault, unquote(grant["cred_id"].removeprefix(TOKENS).partition(":")[2]))


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    vault = hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"])
    consumer = Consumer({"bootstrap.servers": os.environ["KAFKA_BROKERS"], "group.id": os.environ["KAFKA_GROUP"],
                         "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([os.environ["KAFKA_TOPIC"]])
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        event = json.loads(message.value())
        while True:
            try:
                handle(vault, event)
                break
            except (hvac.exceptions.VaultError, requests.RequestException) as error:
                log.warning("trying again: %s", error)
                time.sleep(1)
        consumer.commit(message=message, asynchronous=False)


if __name__ == "__main__":
    main()
