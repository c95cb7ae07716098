"""Each program here is a process of its own, to which signals are sent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import functools, hashlib, os, signal, sys, threading, time
from pathlib import Path
from pipeline import stopping
what, journal = sys.argv[1], Path(sys.argv[2])
stopping.FORCE_S = 15.0 if what in {"sleeping", "other handlers", "lost"} else 0.5  # else the main thread cannot end

def note(word, seconds=0.0):
    with journal.open("a") as file:
        file.write(word + "\\n")
    if seconds:
        print("ready", flush=True)
        time.sleep(seconds)

def compute():
    sys.setswitchinterval(100.0)  # so the other thread says "ready" only when this one is in C
    begun = threading.Event()
    threading.Thread(target=lambda: (begun.wait(), print("ready", flush=True)), daemon=True).start()
    begun.set()
    hashlib.pbkdf2_hmac("sha512", b"", b"", 10**9)

def main():
    if what == "ends itself":
        print("ready", flush=True)
        while not stopping.is_asked():
            time.sleep(0.02)
        time.sleep(4 * stopping.FORCE_S)  # more signals come in here
        os.write(2, b"its own line\\n")
        return 0
    if what == "other handlers":  # as Ray and Ray Tune replace them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    slow = [30.0] if what == "tidying" else []
    with stopping.finally_once_more(lambda: note("tidied", slow.pop() if slow else 0.0)):
        if what == "tidying":
            return 0
        try:  # the signals come once "ready" is written, so that is written where they are caught
            if what == "in C":
                compute()
            if what == "lost":
                threading.Timer(0.2, stopping.interrupt, ["the agent has ended"]).start()
            print("ready", flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            note("interrupted")
            if what != "lost":
                os.write(2, b"a library's line\\n")
            time.sleep(0.2)  # a second signal comes in here
            if what == "lost":
                return 2
            raise
    return 0

stopping.watch("sweep", "run again")
if what == "importing":
    note("imports", 30.0)
stopping.run(main, ends_itself=what == "ends itself")
"""


def started(what: str, journal: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what, str(journal)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("what", "number", "steps"),
    [
        ("importing", signal.SIGINT, ["imports"]),
        ("sleeping", signal.SIGINT, ["interrupted", "tidied"]),
        ("sleeping", signal.SIGTERM, ["interrupted", "tidied"]),
        ("other handlers", signal.SIGINT, ["interrupted", "tidied"]),
        ("other handlers", signal.SIGTERM, ["interrupted", "tidied"]),
        ("in C", signal.SIGTERM, ["tidied"]),
        ("tidying", signal.SIGINT, ["tidied", "tidied"]),
    ],
)
def test_a_signal_is_one_line_and_leaves_nothing_however_often_it_comes(
    what: str, number: signal.Signals, steps: list[str], tmp_path: Path
) -> None:
    with started(what, tmp_path / "journal") as process:
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.03)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "", f"sweep: stopped by {number.name}; run again\n")
    assert (tmp_path / "journal").read_text().split() == steps


def test_a_thread_that_knows_why_interrupts_the_main_one(tmp_path: Path) -> None:
    with started("lost", tmp_path / "journal") as process:
        assert process.communicate(timeout=60) == ("", "")  # main says why
    assert process.returncode == 2
    assert (tmp_path / "journal").read_text().split() == ["interrupted", "tidied"]


def test_a_program_without_a_watch_is_interrupted_as_by_ctrl_c() -> None:
    program = "import threading, time; from pipeline import stopping\n"
    program += "threading.Timer(0.2, stopping.interrupt, ['']).start(); time.sleep(30)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_a_program_that_ends_itself_is_neither_interrupted_nor_forced(tmp_path: Path) -> None:
    with started("ends itself", tmp_path / "journal") as process:
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.03)
        assert process.communicate(timeout=60) == ("", "sweep: stopped by SIGTERM; run again\nits own line\n")
    assert process.returncode == 143
