"""A client of the agent's tools, as small as one can be: what follows it uses `call`."""
import json
import os
import sys
import urllib.error
import urllib.request


def ask(method, url=None, token=None, **params):
    """One request; its result. What is refused below the protocol is an `HTTPError`."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Authorization": "Bearer " + (token or os.environ["CONDUCTOR_MCP_TOKEN"]),
    }
    request = urllib.request.Request(url or os.environ["CONDUCTOR_MCP_URL"], body.encode(), headers)
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            # Lines between are signs of life.
            if line.startswith(b"data: {"):
                said = json.loads(line[6:])
                return said["result"] if "result" in said else said["error"]


def call(tool, **arguments):
    """What a tool answers, or the text of its error."""
    result = ask("tools/call", name=tool, arguments=arguments)
    if "code" in result:
        return result["message"]
    return result["content"][0]["text"] if result["isError"] else result["structuredContent"]


def problem(tool, **arguments):
    """Why a tool does not do something; nothing if it does."""
    said = call(tool, **arguments)
    return said if isinstance(said, str) else None
