"""Predictions of many slides on two processes, killed and continued."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import stpredict as stp

#: Slides, kills, and processes that continue in the end; the session `hostile` asks for more.
N_SLIDES, N_KILLS, N_JOBS = (10, 2, 2) if "STPREDICT_HOSTILE_KILLS" in os.environ else (4, 1, 1)
RUN = """
import sys
import stpredict as stp
if __name__ == "__main__":
    model, out, *slides = sys.argv[1:]
    stp.tl.predict_slides(slides, stp.models.load(model), out, n_jobs=2)
"""


@pytest.fixture
def slides(write_slide, tmp_path):
    """Files of slides, of which the second is damaged."""
    slides = [write_slide(tmp_path / f"slide{seed}.tif", seed) for seed in range(N_SLIDES)]
    slides[1].write_bytes(slides[1].read_bytes()[:20_000])
    return slides


def finished_slides(out):
    """Records of finished slides, with the time they were written."""
    records = (out / ".stpredict").glob("*.json")
    return {
        path.stem: path.stat().st_mtime_ns
        for path in records
        if json.loads(path.read_text())["state"] == "finished"
    }


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="processes are killed by POSIX signals")
def test_killed_runs_continue_without_repeating_finished_slides(slide_model, slides, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    slide_model.save(tmp_path / "model")
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, script, tmp_path / "model", killed, *slides]
    finished = {}
    for kill in range(N_KILLS):
        run = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 600
        while len(finished_slides(killed)) <= len(finished) and time.monotonic() < deadline:
            time.sleep(0.05)
        # four slides are finished soon after the first
        time.sleep(random.Random(kill).uniform(0, 1) if N_SLIDES > 4 else 0)
        assert run.poll() is None, "the run ended before it was killed"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert finished.items() <= finished_slides(killed).items()
        finished = finished_slides(killed)
    stp.tl.predict_slides(slides, slide_model, killed, n_jobs=N_JOBS)
    stp.tl.predict_slides(slides, slide_model, whole)
    assert 0 < len(finished) < N_SLIDES - 1
    assert finished.items() <= finished_slides(killed).items()
    tables = [pd.read_csv(out / "manifest.csv").set_index("name") for out in (killed, whole)]
    for table in tables:
        assert table.index[table["state"] == "failed"].tolist() == ["slide1"]
        assert "truncated" in table.loc["slide1", "error"]
        assert table["state"].eq("finished").sum() == N_SLIDES - 1
    left = [{path.name for path in out.iterdir()} for out in (killed, whole)]
    assert left[0] == left[1]
    for name in tables[0].index.drop("slide1"):
        one, other = (ad.read_h5ad(out / f"{name}.h5ad") for out in (killed, whole))
        np.testing.assert_array_equal(one.X, other.X)
        pd.testing.assert_frame_equal(one.obs, other.obs)
