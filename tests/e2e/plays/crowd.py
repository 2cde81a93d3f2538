"""A task of two turns: an edit, and a word about it that is not said before it is let go."""
import os
import time

from talk import PATIENCE, end

HERE = os.environ["FAKE_WD"]
POLL = 0.05


def play(talk):
    name = talk.task["name"]
    wrote = talk.used("Write")
    if not wrote:
        text = f"made by {name}\n"
        return [("tool", "Write", {"file_path": f"/workspace/{name}", "content": text})]
    open(os.path.join(HERE, f"held-{name}"), "w").close()
    until = time.monotonic() + PATIENCE
    while not os.path.exists(os.path.join(HERE, "let-go")) and time.monotonic() < until:
        time.sleep(POLL)
    return end(f"{name}: {wrote.said}")
