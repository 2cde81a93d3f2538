names = [tool["name"] for tool in ask("tools/list")["tools"]]
assert names == [
    "report_progress", "attach_artifact", "request_approval", "ask_human", "get_task", "complete",
], names
init = ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "c", "version": "1"})
assert (init["serverInfo"]["name"], init["protocolVersion"]) == ("conductor", "2025-11-25"), init

assert call("report_progress", percent=40, message="halfway") == {"noted": True}
wrong = call("report_progress", percent=400, message="m")
assert wrong.startswith("percent: is 400"), wrong

os.makedirs("out")
with open("out/a.txt", "w") as file:
    file.write("abc")
kept = call("attach_artifact", path=os.path.abspath("out/a.txt"), name="report.txt")
assert kept["sha256"].startswith("ba7816bf8f01cfea") and kept["size"] == 3, kept
os.remove("out/a.txt")
os.symlink("/etc/passwd", "link")
for path in ("link", "../x", "/etc/passwd"):
    refused = call("attach_artifact", path=path)
    assert refused.startswith("path: "), refused

task = call("get_task")
assert task["task"] == os.environ["CONDUCTOR_TASK"] and task["attempt"] == 1, task
assert task["result_schema"]["required"] == ["n"] and task["deadline"], task
assert "no such tool" in ask("tools/call", name="create_subtask", arguments={})["message"]

missing = call("complete", summary="done")
assert missing.startswith("structured: is missing"), missing
wrong = call("complete", summary="done", structured={"n": "x"})
assert "does not fit result_schema: at /n" in wrong, wrong
assert call("complete", summary="all done", structured={"n": 6}) == {"taken": True}
assert call("complete", summary="all done", structured={"n": 7}) == {"taken": True}

os.makedirs(".conductor", exist_ok=True)
with open(".conductor/result.json", "w") as file:
    file.write('{"n": 8}')
print("what it prints")
