#!/usr/bin/env python3
"""Runs the demo against a real Jaeger and asks its query API whether every sample task is
exactly one whole trace. Without Go it says so and does nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

# Jaeger 2.13. Its module is versioned as v1, and builds only where its own go.mod is the main one.
VERSION = "v1.76.0"
MODULE = f"github.com/jaegertracing/jaeger@{VERSION}"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conductor"
BINARY = CACHE / f"jaeger-{VERSION}" / "jaeger"

CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
extensions:
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
  jaeger_storage:
    backends: {{memory: {{memory: {{max_traces: 10000}}}}}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""

# The sample of the demo: outcome and attempts of each task.
SAMPLE = {
    "hello-1": ("succeeded", 1),
    "hello-2": ("succeeded", 1),
    "hello-3": ("succeeded", 1),
    "flaky": ("succeeded", 3),
    "build": ("succeeded", 1),
    "test-unit": ("succeeded", 1),
    "test-e2e": ("succeeded", 1),
    "ship": ("succeeded", 1),
    "endless": ("cancelled", 1),
    "plain-nats": ("succeeded", 1),
}
LIVE = {"append", "decide", "plan", "prepare", "process"}


def build():
    if BINARY.exists():
        return
    print(f"building Jaeger {VERSION} (some minutes, once)")
    said = subprocess.run(["go", "mod", "download", "-json", MODULE], check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "jaeger"
        shutil.copytree(json.loads(said.stdout)["Dir"], source)
        subprocess.run(["chmod", "-R", "u+w", source], check=True)
        BINARY.parent.mkdir(parents=True, exist_ok=True)
        part = BINARY.with_suffix(".part")
        subprocess.run(["go", "build", "-o", part, "./cmd/jaeger"], cwd=source, check=True)
        part.rename(BINARY)


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def ask(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


def until(what, look, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except OSError as e:
            found, what = None, f"{what} ({e})"
        if found:
            return found
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.2)


def tags(span):
    return {t["key"]: t["value"] for t in span["tags"]}


def parent(span):
    refs = [r["spanID"] for r in span["references"] if r["refType"] == "CHILD_OF"]
    return refs[0] if refs else None


def whole(name, trace):
    """What is wrong with the one trace of a sample task."""
    spans = trace["spans"]
    ids = Counter(s["spanID"] for s in spans)
    wrong = [f"span {i} {n} times" for i, n in ids.items() if n > 1]
    wrong += [f"orphan {s['operationName']}" for s in spans if parent(s) and parent(s) not in ids]
    roots = [s for s in spans if not parent(s)]
    if [r["operationName"] for r in roots] != ["task"]:
        return wrong + [f"roots {[r['operationName'] for r in roots]}"]
    names = Counter(s["operationName"] for s in spans)
    outcome, attempts = SAMPLE[name]
    of_root = tags(roots[0])
    if of_root.get("conductor.outcome") != outcome:
        wrong.append(f"outcome {of_root.get('conductor.outcome')}, not {outcome}")
    expected = {"task": 1, "accept": 1, "attempt": attempts, "wait for retry": attempts - 1}
    expected["wait for needs or time"] = int(name in ("test-unit", "test-e2e", "ship"))
    wrong += [f"{names[k]} × {k}, not {n}" for k, n in expected.items() if names[k] != n]
    wrong += [f"no live span {n}" for n in LIVE - set(names)]
    return wrong


def main():
    binary = Path(sys.argv[1])
    if not BINARY.exists() and not shutil.which("go"):
        print("SKIPPED: Go is missing, so Jaeger cannot be built here; install Go and try again")
        return
    build()
    query, query_grpc, grpc, http = free_ports(4)
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "jaeger.yaml"
        config.write_text(CONFIG.format(query=query, query_grpc=query_grpc, grpc=grpc, http=http))
        log = open(Path(directory) / "jaeger.log", "w+")
        jaeger = subprocess.Popen([BINARY, "--config", config], stdout=log, stderr=log)
        try:
            until("Jaeger", lambda: "data" in ask(query, "/api/services"))
            for protocol, port in (("grpc", grpc), ("http/protobuf", http)):
                check(binary, query, protocol, port)
        except BaseException:
            log.seek(0)
            print(log.read()[-3000:], file=sys.stderr)
            raise
        finally:
            jaeger.terminate()
            jaeger.wait()
    print("every sample task is exactly one whole trace in Jaeger")


def check(binary, query, protocol, port):
    service = "conductor-" + protocol.split("/")[0]
    env = dict(
        os.environ,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_SERVICE_NAME=service,
    )
    print(f"conductor demo over {protocol}")
    subprocess.run([binary, "demo"], env=env, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def traces():
        found = ask(query, f"/api/traces?service={service}&limit=1000&lookback=1h")["data"]
        by_task = {}
        for trace in found or []:
            for span in trace["spans"]:
                if span["operationName"] == "task":
                    by_task.setdefault(tags(span).get("conductor.task.name"), []).append(trace)
        is_complete = set(by_task) >= set(SAMPLE) and len(found) >= len(SAMPLE)
        return (found, by_task) if is_complete else None

    found, by_task = until(f"{len(SAMPLE)} traces", traces)
    wrong = []
    if len(found) != len(SAMPLE):
        wrong.append(f"{len(found)} traces of {len(SAMPLE)} tasks")
    for name in SAMPLE:
        if len(by_task[name]) != 1:
            wrong.append(f"{name} is {len(by_task[name])} traces")
        wrong += [f"{name}: {w}" for w in whole(name, by_task[name][0])]
    if wrong:
        sys.exit("\n".join(wrong))
    spans = sum(len(t["spans"]) for t in found)
    print(f"  {len(found)} tasks, {len(found)} traces, {spans} spans, none twice, no orphan")


if __name__ == "__main__":
    main()
