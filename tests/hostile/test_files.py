"""Damaged files: a clear error that is ours, or the file is read; never a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Damaged files of each kind; the session `hostile` asks for more.
N_FILES = int(os.environ.get("STPREDICT_HOSTILE_FILES", "10"))
MOST_SECONDS, MOST_MEGABYTES = 600, 2048  # a guard, also on busy machines
KINDS = ("h5ad", "st", "visium", "visium_hd", "xenium", "hackathon", "slides", "model")
PROGRAM = Path(__file__).with_name("attack_files.py")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    command = [sys.executable, str(PROGRAM), kind, "0", str(N_FILES), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    last = next((line["input"] for line in reversed(lines) if "input" in line), "no input")
    assert done.returncode == 0, f"{last}: {done.stderr[-2000:]}"
    outcomes = [line for line in lines if "seconds" in line]
    assert len(outcomes) == N_FILES
    foreign = [line["error"] for line in outcomes if not line.get("ours", True)]
    assert not foreign, foreign
    assert max(line["seconds"] for line in outcomes) < MOST_SECONDS
    assert max(line["megabytes"] for line in outcomes) < MOST_MEGABYTES
