"""SIGINT and SIGTERM end a program in one plain line, with exit status 130 or 143, whatever it is doing.

Libraries put their own handlers in place (Ray in Python and in C++, Ray Tune), and Python runs its handlers between two
instructions only. So both signals are blocked in all threads but one, which waits for them: it writes the line, and
interrupts the main thread, whose `finally` clauses then run. A second signal changes nothing, and nothing is written
after the line: a library has lines of its own when other processes of its end. What has not ended `FORCE_S` seconds
later, a call of C++ that does not return for instance, is ended all the same.

A program that has to end what its libraries run elsewhere looks at `is_asked` and ends itself: it is neither
interrupted nor forced, and what it writes is its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

FORCE_S = 6.0
"""For the main thread to end by itself; `docker stop` kills after 10 s."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """This process was asked to end, by a signal or by a thread of its own."""


class _Process:
    """What there is once in a process.

    Attributes:
        name: Of the program, before the colon of its line; None where nobody watches for signals.
        advice: The end of the line.
        is_main_at_work: Whether the main thread can be interrupted; else the process is ended at once.
        ends_itself: Whether the program looks at `is_asked`, and nothing but the line is done for it.
        status: The exit status once the process is to end.
        ends: What must be done before it does, the last one first.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.advice = ""
        self.is_main_at_work = self.ends_itself = False
        self.status: int | None = None
        self.ends: list[Callable[[], None]] = []
        self._asked = threading.Lock()

    def ask(self, status: int, line: str | None, line_when_forced: str = "") -> None:
        """Interrupt the main thread, and end the process if that does not; the first call counts."""
        with self._asked:
            if self.status is not None:
                return
            if line is not None:
                self._say(line)  # before `is_asked` lets the program end
            self.status = status
        if line is not None:
            if self.ends_itself:
                return
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C++ writes there as well
        if self.is_main_at_work:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)
            time.sleep(FORCE_S)
            if line_when_forced:
                self._say(line_when_forced)
        self.leave()

    def leave(self) -> NoReturn:
        """Do what is left to do, and end the process without waiting for threads or libraries."""
        for end in reversed(self.ends):
            with contextlib.suppress(Exception):
                end()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self.status or 0)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"{self.name}: {line}", file=sys.stderr, flush=True)


_process = _Process()


def watch(name: str, advice: str) -> None:
    """Let SIGINT and SIGTERM end this process from now on; to be called before anything has started a thread.

    Args:
        name: Of the program.
        advice: What the user can do next, the end of the line.
    """
    _process.name, _process.advice = name, advice
    signal.signal(signal.SIGURG, _raise)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.register_at_fork(after_in_child=_begin_apart)
    threading.Thread(target=_listen, name="signals", daemon=True).start()


def run(main: Callable[[], int], *, ends_itself: bool = False) -> NoReturn:
    """Call a program's `main` and end the process with its status, or as `watch` says.

    Args:
        main: The program.
        ends_itself: Whether it looks at `is_asked`, and is not interrupted.
    """
    status, _process.ends_itself = 1, ends_itself
    try:
        _process.is_main_at_work = True
        status = main()
    except KeyboardInterrupt:  # Ray makes its own of ours
        _process.leave()  # here, since what the exception holds may not be freed without Ray
    finally:
        _process.is_main_at_work = False
    if _process.status is not None and not ends_itself:
        _process.leave()
    sys.exit(status if _process.status is None else _process.status)


def interrupt(reason: str) -> None:
    """Raise KeyboardInterrupt in the main thread, from another one that knows why the work cannot go on.

    Args:
        reason: Written where the main thread cannot be interrupted and the process is ended with status 2.
    """
    if _process.name is None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        threading.Thread(target=_process.ask, args=(2, None, reason), daemon=True).start()


def is_asked() -> bool:
    """Return whether this process is to end."""
    return _process.status is not None


@contextlib.contextmanager
def finally_once_more(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` after the body, as `finally` does, and again if this process is stopped meanwhile."""
    _process.ends.append(end)
    try:
        yield
    finally:
        end()
        _process.ends.remove(end)


def _listen() -> None:
    while True:
        number = signal.sigwait(SIGNALS)
        asked = (128 + number, _line(number, _process.advice))
        threading.Thread(target=_process.ask, args=asked, daemon=True).start()


def _line(number: int, advice: str) -> str:
    return f"stopped by {signal.Signals(number).name}; {advice}"


def _begin_apart() -> None:
    """Let a process that was forked, as Ray's own are, be ended, but not with this one's group, as by Ctrl-C.

    Ray ends a driver without a word whose own processes end first.
    """
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _raise(*_: object) -> None:
    if _process.status is not None and _process.is_main_at_work:
        _process.is_main_at_work = False  # once: what cleans up is not interrupted
        raise Stopped
