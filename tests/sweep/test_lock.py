from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import SweepError
from pipeline.sweep.run import sweep_lock

HOLD = """
import sys, time
from pathlib import Path
from pipeline.sweep.run import sweep_lock
with sweep_lock(Path(sys.argv[1]), "cells"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_sweep_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".trials" / "cells.lock"
    message = rf"'cells' is being swept already by pid {os.getpid()} on {socket.gethostname()} since .*trials are kept"
    with sweep_lock(path, "cells"), pytest.raises(SweepError, match=message), sweep_lock(path, "cells"):
        pass
    with sweep_lock(path, "cells"):
        pass


def test_kill_9_releases_it(tmp_path: Path) -> None:
    path = tmp_path / "cells.lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SweepError, match=f"by pid {holder.pid} on"), sweep_lock(path, "cells"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with sweep_lock(path, "cells"):
        assert str(os.getpid()) in path.read_text()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SweepError, match="the lock of study 'cells' cannot be made"),
        sweep_lock(tmp_path / "file/x", "cells"),
    ):
        pass
