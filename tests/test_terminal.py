"""Progress in a log file: whole lines, and none for what is done at once. Real processes with a
pipe for stderr.
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

SCRIPT = """
import sys
from mtl_ray import terminal
terminal.LOG_EVERY_S = float(sys.argv[1])
with terminal.progress_bar(total=5, desc="work", unit="task", leave=sys.argv[2] == "leave", log_from_s=float(sys.argv[1])) as bar:
    for _ in range(5):
        bar.update()
print("first result")
"""  # noqa: E501


def stderr_of(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout == "first result\n"
    return done.stderr


def test_what_is_done_at_once_leaves_nothing_in_a_log() -> None:
    assert stderr_of("1000", "go") == ""


def test_a_log_gets_whole_lines() -> None:
    for leave in ("leave", "go"):
        lines = stderr_of("0", leave)
        assert "\r" not in lines
        assert lines.endswith("\n")
        assert all(line.startswith("work: ") for line in lines.splitlines())
        assert "5/5" in lines


def test_a_person_sees_a_bar_in_place() -> None:
    reads, writes = pty.openpty()
    fcntl.ioctl(writes, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run(
        [sys.executable, "-c", SCRIPT, "1000", "leave"],
        stderr=writes,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    os.close(writes)
    seen = os.read(reads, 100_000).decode()
    os.close(reads)
    assert "\r" in seen
    assert "5/5" in seen
