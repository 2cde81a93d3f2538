"""A task with edits, killed once in their middle: it looks where it is, edits one file, is held up
after that, and makes another file. What it does next depends on what its tools said."""
from talk import end

HELD = set()
LOOK = """env | grep -iE 'anthropic|api_key' | sort; ls /sys/class/net 2>/dev/null
tail -n +3 /proc/net/dev | cut -d: -f1
(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo reached the service || echo no way to the service
git status --short"""


def play(talk):
    looked = talk.ran(LOOK.format(**talk.task))
    if not looked:
        return talk.bash(LOOK.format(**talk.task))
    read = talk.used("Read")
    if not read:
        return [("tool", "Read", {"file_path": "/workspace/f"})]
    if "2" not in read.said:
        return end(f"f is not what it should be: {read.said}")
    tried = [done for done in talk.done if done.name == "Edit"]
    if tried and tried[-1].failed:
        return end(f"my edit failed: {tried[-1].said}")
    if not tried:
        edit = {"file_path": "/workspace/f", "old_string": "2", "new_string": "two"}
        return [("tool", "Edit", edit)]
    if talk.session not in HELD:
        HELD.add(talk.session)
        return talk.bash("sleep 97", "wait")
    seen = talk.ran("cat f")
    if not seen:
        return talk.bash("cat f")
    if "two" not in seen.said:
        return end(f"my edit is gone: {seen.said}")
    if not talk.used("Write"):
        return [("tool", "Write", {"file_path": "/workspace/new", "content": "n\n"})]
    return end(f"done after {len(talk.done)} results; I had seen: {looked.said}")
