"""What a model knows of a talk with a CLI: its task, and what its tools said so far."""
import json
import re
import threading

PATIENCE = 80


class Done:
    """A tool call that has its result."""

    def __init__(self, name, call, said, failed):
        self.name, self.call, self.said, self.failed = name, call, said, failed


class Talk:
    def __init__(self, body, session):
        self.session = session
        self.body = body
        self.task, self.done = {}, []
        calls = {}
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for block in blocks:
                if block["type"] == "tool_use":
                    calls[block["id"]] = (block["name"], block["input"])
                elif block["type"] == "tool_result":
                    name, call = calls.get(block["tool_use_id"], ("?", {}))
                    said = flat(block.get("content"))
                    self.done.append(Done(name, call, said, bool(block.get("is_error"))))
                elif block["type"] == "text" and message["role"] == "user":
                    self.take_task(block["text"])

    def take_task(self, text):
        """What stands behind `[[task]]` in the prompt is for us."""
        if "[[task]]" in text:
            self.task, _ = json.JSONDecoder().raw_decode(text.split("[[task]]", 1)[1].strip())

    def bash(self, script, why="look"):
        """A call of Bash with this script."""
        return [("tool", "Bash", {"command": script, "description": why})]

    def ran(self, script):
        """What the script said, if it was run."""
        for done in self.done:
            if done.name == "Bash" and done.call.get("command") == script:
                return done
        return None

    def used(self, name):
        """The last call of a tool that worked."""
        found = [done for done in self.done if done.name == name and not done.failed]
        return found[-1] if found else None


def flat(content):
    """What a tool said, without what the CLI adds for the model."""
    if not isinstance(content, str):
        content = "".join(block.get("text", "") for block in content or [])
    return re.sub(r"\s*<system-reminder>.*?</system-reminder>", "", content, flags=re.S)


class Meeting:
    """Where models wait for each other: all go on once so many have come."""

    def __init__(self):
        self.lock = threading.Condition()
        self.here = {}

    def come(self, place, who, count):
        """Returns whether all came."""
        with self.lock:
            self.here.setdefault(place, set()).add(who)
            self.lock.notify_all()
            return self.lock.wait_for(lambda: len(self.here[place]) >= count, PATIENCE)


def end(text):
    return [("text", text)]

