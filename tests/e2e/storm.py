"""Submits tasks with nats-py alone: nothing here knows of Conductor but a subject and JSON.

usage: storm.py URL TASKS TWICE; prints the ids it had acknowledged, as a JSON list.
"""

import asyncio
import json
import os
import sys
import time
import uuid

import nats

AT_ONCE = 20


def uuid7():
    """A UUIDv7 as RFC 9562 has it: milliseconds, then random bits."""
    ms = time.time_ns() // 1_000_000
    raw = ms.to_bytes(6, "big") + os.urandom(10)
    number = int.from_bytes(raw, "big")
    number = number & ~(0xF << 76) | (0x7 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=number))


def task(n, task_id):
    if n % 5 == 0:
        run = {"command": ["sh", "-c", "sleep 0.02; echo done"]}
    else:
        run = {"noop": {}}
    return json.dumps({"id": task_id, "name": f"task {n}", "run": run}).encode()


async def publish(js, payload):
    """Publishes until the log has acknowledged it: a client that wants to be sure."""
    while True:
        try:
            await js.publish("conductor.local.submit.default", payload, timeout=2)
            return
        except Exception:  # the server may be away just now, in any of many ways
            await asyncio.sleep(0.05)


async def main(url, count, twice):
    async def quiet(_):
        pass

    client = await nats.connect(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
    js = client.jetstream()
    tasks = [(task_id := uuid7(), task(n, task_id)) for n in range(count)]
    for start in range(0, count, AT_ONCE):
        group = [payload for _, payload in tasks[start:start + AT_ONCE]]
        await asyncio.gather(*(publish(js, payload) for payload in group))
    # The same ids again, from a client that does not remember whether it had asked.
    step = max(1, count // twice)
    for _, payload in tasks[::step][:twice]:
        await publish(js, payload)
    print(json.dumps([task_id for task_id, _ in tasks]))
    await client.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
