"""Functions that write to disk, killed at random moments: nothing finished is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Kills of each function; the session `hostile` asks for more.
N_KILLS = int(os.environ.get("STPREDICT_HOSTILE_KILLS", "2"))
ACTIONS = ("save", "cross_validate", "report")
PROGRAM = Path(__file__).with_name("attack_kills.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed by POSIX signals")
def test_nothing_is_lost_by_a_kill(tmp_path):
    command = [sys.executable, str(PROGRAM), "0", str(N_KILLS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    kills = [json.loads(line)["action"] for line in done.stdout.splitlines()]
    assert kills == [action for action in ACTIONS for _ in range(N_KILLS)]
