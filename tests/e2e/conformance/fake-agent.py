#!/usr/bin/env python3
"""Speaks the stream of an agent's program, and misbehaves on demand.

As `claude` and `codex` by the name it is started under, as an agent of the Agent Client
Protocol with the argument `acp`. What it does stands in the prompt, as [[name]].
"""
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
import uuid


def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def line(**value):
    write(json.dumps(value).encode() + b"\n")


def read():
    text = sys.stdin.readline()
    if not text:
        sys.exit(0)
    return json.loads(text)


def after(flag):
    args = sys.argv
    return args[args.index(flag) + 1] if flag in args else None


def complete(url, authorization):
    """Gives a result by the tool of that name."""
    call = {"name": "complete", "arguments": {"summary": "by its tools"}}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "Authorization": authorization,
    }
    request = urllib.request.Request(url, json.dumps(ask).encode(), headers)
    assert b'"taken":true' in urllib.request.urlopen(request).read()


def keep(folder, name):
    """Keeps a session where the real one does, for another run to find."""
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, name), "w").close()


class Claude:
    version = "9.9.1 (Claude Code)"

    def begin(self):
        self.resumed = after("--resume")
        self.session = self.resumed or after("--session-id")
        first = read()
        if first["type"] == "control_request":
            first = read()
        message = first["message"]["content"][0]["text"]
        keep(os.path.join(os.environ["HOME"], ".claude/projects/-w"), f"{self.session}.jsonl")
        line(type="system", subtype="init", session_id=self.session, model="fake-model")
        return message

    def server(self):
        """Where its tools are, and what lets it in there."""
        server = json.loads(after("--mcp-config"))["mcpServers"]["conductor"]
        return server["url"], os.path.expandvars(server["headers"]["Authorization"])

    def text(self, text):
        line(type="assistant", message={"content": [{"type": "text", "text": text}]})

    def tool(self, call, command):
        use = {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": command}}
        line(type="assistant", message={"content": [use]})

    def tool_ended(self, call, said, denied=False):
        answer = {"type": "tool_result", "tool_use_id": call, "content": said, "is_error": denied}
        line(type="user", message={"content": [answer]})

    def ask(self, name, command):
        request = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": command}}
        line(type="control_request", request_id=name, request=request)

    def take_back(self, name):
        line(type="control_cancel_request", request_id=name)

    def hear_answer(self, name):
        answer = read()["response"]
        assert answer["request_id"] == name
        return answer["response"]["behavior"] == "allow"

    def retry(self):
        line(type="system", subtype="api_retry", attempt=1, max_retries=4, error_status=503)

    def result(self, text, denied=(), **fields):
        usage = {"inputTokens": 10, "outputTokens": 5}
        value = {
            "type": "result", "subtype": "success", "is_error": False, "result": text,
            "session_id": self.session, "num_turns": 1, "total_cost_usd": 0.5,
            "usage": {"input_tokens": 10, "output_tokens": 5},
            "modelUsage": {"fake-model": usage},
            "permission_denials": [{"tool_name": name} for name in denied],
        }
        line(**{**value, **fields})

    def fail(self):
        self.result("API Error: 401", is_error=True, api_error_status=401)
        sys.exit(1)

    def interrupted(self):
        self.result("", subtype="error_during_execution", is_error=True)
        sys.exit(0)

    def wait_interrupt(self):
        signal.signal(signal.SIGINT, lambda *_: self.interrupted())
        while True:
            self.text("still there")
            time.sleep(0.5)

    def unknown(self):
        line(type="command_lifecycle", state="new")
        line(subtype="of_tomorrow", type="system")
        line(message={"content": [{"text": "?", "type": "new_block"}]}, type="assistant")


class Codex:
    version = "codex-cli 9.9.2"

    def begin(self):
        self.resumed = sys.argv[-2] if "resume" in sys.argv else None
        self.session = self.resumed or str(uuid.uuid4())
        self.denied = False
        prompt = sys.stdin.read()
        keep(os.path.join(os.environ["CODEX_HOME"], "sessions"), f"rollout-{self.session}.jsonl")
        line(type="thread.started", thread_id=self.session)
        line(type="turn.started")
        return prompt

    def server(self):
        set = dict(arg.split("=", 1) for arg in sys.argv if arg.startswith("mcp_servers.conductor."))
        of = lambda name: json.loads(set["mcp_servers.conductor." + name])
        return of("url"), "Bearer " + os.environ[of("bearer_token_env_var")]

    def item(self, state, **item):
        line(type=f"item.{state}", item=item)

    def text(self, text):
        self.item("completed", id="m", type="agent_message", text=text)

    def tool(self, call, command):
        self.item("started", id=call, type="command_execution", command=command, status="in_progress")

    def tool_ended(self, call, said, denied=False):
        status = "declined" if denied else "completed"
        self.item("completed", id=call, type="command_execution", command="", aggregated_output=said, status=status)

    def retry(self):
        line(type="error", message="Reconnecting... 1/4 (unexpected status 503)")

    def result(self, text, denied=()):
        self.text(text)
        line(type="turn.completed", usage={"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 5})

    def fail(self):
        line(type="turn.failed", error={"message": "unexpected status 401 Unauthorized"})
        sys.exit(1)

    def interrupted(self):
        line(type="turn.failed", error={"message": "interrupted"})
        sys.exit(1)

    wait_interrupt = Claude.wait_interrupt

    def unknown(self):
        line(type="thread.of_tomorrow", n=1)
        line(item={"type": "new_item", "id": "x"}, type="item.completed")


class Acp:
    version = "9.9.3"

    def begin(self):
        self.resumed = None
        while True:
            ask = read()
            if ask["method"] == "initialize":
                can = {"loadSession": True, "mcpCapabilities": {"http": True}}
                self.answer(ask, protocolVersion=1, agentCapabilities=can)
            elif ask["method"] == "session/new":
                self.servers = ask["params"]["mcpServers"]
                self.session = str(uuid.uuid4())
                self.answer(ask, sessionId=self.session)
            elif ask["method"] == "session/load":
                self.session = self.resumed = ask["params"]["sessionId"]
                self.update("agent_message_chunk", content={"type": "text", "text": "told before"})
                self.answer(ask)
            elif ask["method"] == "session/prompt":
                self.prompt = ask
                return ask["params"]["prompt"][0]["text"]

    def server(self):
        (server,) = self.servers
        (header,) = server["headers"]
        return server["url"], header["value"]

    def answer(self, ask, **result):
        line(jsonrpc="2.0", id=ask["id"], result=result)

    def update(self, kind, **fields):
        update = {"sessionUpdate": kind, **fields}
        line(jsonrpc="2.0", method="session/update", params={"sessionId": self.session, "update": update})

    def text(self, text):
        self.update("agent_message_chunk", content={"type": "text", "text": text + "\n"})

    def tool(self, call, command):
        self.update("tool_call", toolCallId=call, title="Bash", rawInput={"command": command}, status="pending")
        self.ask(f"ask {call}", command)
        self.allowed = self.hear_answer(f"ask {call}")

    def ask(self, name, command):
        options = [{"optionId": "n", "kind": "reject_once"}, {"optionId": "y", "kind": "allow_once"}]
        wanted = {"toolCallId": name, "title": "Bash", "rawInput": {"command": command}}
        params = {"sessionId": self.session, "toolCall": wanted, "options": options}
        line(jsonrpc="2.0", id=name, method="session/request_permission", params=params)

    def take_back(self, name):
        line(jsonrpc="2.0", method="$/cancel_request", params={"requestId": name})
        assert not self.hear_answer(name)

    def hear_answer(self, name):
        answer = read()
        assert answer["id"] == name
        return answer["result"]["outcome"].get("optionId") == "y"

    def tool_ended(self, call, said, denied=False):
        status = "completed" if self.allowed else "failed"
        self.update("tool_call_update", toolCallId=call, status=status)

    def next_turn(self):
        """What is said to it once its turn has ended."""
        self.prompt = read()
        assert self.prompt["method"] == "session/prompt" and self.prompt["params"]["sessionId"] == self.session
        return self.prompt["params"]["prompt"][0]["text"]

    def retry(self):
        self.update("usage_update", used=1, size=2)

    def result(self, text, denied=()):
        self.text(text)
        self.answer(self.prompt, stopReason="end_turn", usage={"inputTokens": 10, "outputTokens": 5})

    def fail(self):
        line(jsonrpc="2.0", id=self.prompt["id"], error={"code": -32000, "message": "Authentication required"})

    def wait_interrupt(self):
        while not select.select([sys.stdin], [], [], 0.5)[0]:
            self.text("still there")
        assert read()["method"] == "session/cancel"
        self.answer(self.prompt, stopReason="cancelled")

    def unknown(self):
        self.update("of_tomorrow", n=1)
        line(jsonrpc="2.0", method="_of/tomorrow", params={})
        line(params={}, id="q", method="x/y", jsonrpc="2.0")


def leave_children(agent):
    """Two that would outlive their parent: one in the background, one in a session of its own."""
    for own_session in (False, True):
        child = subprocess.Popen(["sleep", "300"], start_new_session=own_session)
        agent.text(f"pid {child.pid}")


def edit(agent):
    """Half of its edits before it is killed with its agent, the rest once it goes on."""
    if not agent.resumed:
        with open("f", "a") as file:
            file.write("4\n")
        with open("new", "w") as file:
            file.write("n\n")
        agent.text("half of it")
        time.sleep(300)
    with open("f") as file:
        found = file.read()
    with open("f", "a") as file:
        file.write("5\n")
    with open("late", "w") as file:
        file.write("l\n")
    agent.result(f"found {found.splitlines()} and {os.path.exists('new')}")


def run(agent, case):
    if case == "resume" and not agent.resumed:
        agent.text("about to be killed")
        os.kill(os.getpid(), signal.SIGKILL)
    if case == "tool":
        command = "echo from the tool > made.txt && cat made.txt"
        agent.tool("c1", command)
        made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        agent.tool_ended("c1", made.stdout)
        agent.result(made.stdout.strip())
    elif case == "consent":
        agent.tool("c1", "make install")
        agent.tool_ended("c1", "")
        agent.result("it was allowed" if agent.allowed else "it was not allowed")
    elif case == "takeback":
        agent.ask("q1", "make clean")
        agent.take_back("q1")
        agent.ask("q2", "make install")
        agent.result("it was allowed" if agent.hear_answer("q2") else "it was not allowed")
    elif case == "leaves":
        agent.ask("q1", "make clean")
        agent.result("without an answer")
    elif case == "turns":
        agent.tool("c1", "make")
        agent.tool_ended("c1", "")
        agent.result("the first turn")
        agent.result(f"heard: {agent.next_turn()}")
    elif case == "denied":
        agent.tool("c1", "rm -rf /")
        agent.tool_ended("c1", "denied", denied=True)
        agent.result("done without", denied=["Bash"])
    elif case == "transient":
        agent.retry()
        agent.retry()
        agent.result("recovered")
    elif case == "permanent":
        agent.fail()
    elif case == "stall":
        agent.text("partial")
        time.sleep(300)
    elif case == "hang":
        agent.result("done")
        time.sleep(300)
    elif case == "long":
        write(b'{"type":"' + b"x" * (17 << 20) + b'"}\n')
        agent.result("after the line")
    elif case == "utf8":
        write(b"\xff\xfe not text\n")
        agent.result("after the bytes")
    elif case == "crash":
        agent.tool("c1", "sleep 300")
        leave_children(agent)
        os.kill(os.getpid(), signal.SIGKILL)
    elif case == "interrupt":
        agent.tool("c1", "sleep 300")
        leave_children(agent)
        agent.wait_interrupt()
    elif case == "children":
        leave_children(agent)
        agent.result("left some")
    elif case == "two":
        agent.result("first")
        agent.result("second")
    elif case == "after":
        agent.result("done")
        agent.text("afterwards")
        write(b"and no json\n")
    elif case == "unknown":
        agent.unknown()
        agent.result("known")
    elif case == "complete":
        complete(*agent.server())
        agent.result("by what it says")
    elif case == "edit":
        edit(agent)
    elif case == "resume":
        agent.result(f"resumed {agent.resumed}")
    else:
        agent.text("hello")
        agent.result("hello")


def main():
    name = "acp" if "acp" in sys.argv[1:2] else os.path.basename(sys.argv[0])
    agent = {"claude": Claude, "codex": Codex, "acp": Acp}[name]()
    if "--version" in sys.argv:
        print(agent.version)
        return
    case = re.search(r"\[\[(\w+)\]\]", agent.begin())
    run(agent, case.group(1) if case else "ok")


main()
