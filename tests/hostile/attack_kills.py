"""Kill functions at random moments while they write: ``attack_kills.py SEED N FOLDER``.

Each kill prints a line of JSON. A check that fails raises, and ends the process with an error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import dask
import numpy as np

import stpredict as stp


def sections():
    sdata = stp.datasets.phantom(3, size_px=300, mpp=0.5, pitch_um=40, n_morphology=2)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4)
    stp.pp.embed(sdata, tile_um=40)
    return sdata


def fit(sdata, alpha=1.0):
    return stp.tl.fit_ridge(sdata, context="spot", alpha=alpha)


class Save:
    """Saving one of two models over the other: one of them can always be loaded."""

    def __init__(self, folder):
        self.path = folder / "model"
        sdata = sections()
        self.models = [fit(sdata, alpha) for alpha in (1.0, 1000.0)]
        self.features = np.ones((2, self.models[0].inputs.mean.shape[0]), dtype=np.float32)
        self.expected = [model.predict_array(self.features) for model in self.models]
        self.models[0].save(self.path)
        (self.path / "notes.txt").write_text("of the user")
        self.turn = 0

    def run(self):
        self.models[self.turn % 2].save(self.path)

    def check(self):
        self.turn += 1
        predicted = stp.models.load(self.path).predict_array(self.features)
        assert any(np.array_equal(predicted, one) for one in self.expected)
        assert (self.path / "notes.txt").read_text() == "of the user"

    def finish(self):
        self.run()
        self.check()
        entries = {path.name for path in self.path.parent.iterdir()}
        assert entries == {"model"}, f"left behind: {entries}"
        assert len(list(self.path.iterdir())) == 5, list(self.path.iterdir())


class CrossValidate:
    """Interrupted runs in one folder: the last one gives the scores of an uninterrupted run."""

    def __init__(self, folder):
        self.folder = folder
        self.sdata = sections()
        self.expected = self.scores(None)

    def scores(self, folder):
        methods = {"ridge": fit, "strong": lambda sdata: fit(sdata, 1000.0)}
        return stp.tl.cross_validate(self.sdata, methods, folder=folder).table

    def run(self):
        self.scores(self.folder / "runs")

    def check(self):
        return

    def finish(self):
        table = self.scores(self.folder / "runs")
        assert table.equals(self.expected)
        left = [path for path in (self.folder / "runs").iterdir() if path.name.startswith(".")]
        assert not left, left


class Report:
    """Writing a report over another: there is always a whole one."""

    def __init__(self, folder):
        self.path = folder / "report.html"
        self.sdata = sections()
        self.scores = stp.tl.cross_validate(self.sdata, {"ridge": fit})
        self.run()
        self.text = self.path.read_text()

    def run(self):
        stp.report.write_html(self.sdata, self.scores, self.path)

    def check(self):
        text = self.path.read_text()
        assert text.endswith("</html>\n") or text.rstrip().endswith("</html>")
        assert len(text) == len(self.text)

    def finish(self):
        self.run()
        assert {path.name for path in self.path.parent.iterdir()} == {"report.html"}


ACTIONS = {"save": Save, "cross_validate": CrossValidate, "report": Report}


def attack(name, seed, n, folder):
    folder.mkdir()
    action = ACTIONS[name](folder)
    start = time.perf_counter()
    action.run()
    longest = time.perf_counter() - start
    random = np.random.default_rng(seed)
    for _ in range(n):
        child = os.fork()
        if child == 0:
            action.run()
            os._exit(0)
        delay = random.uniform(0, 1.2 * longest)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        action.check()
        print(
            json.dumps({"action": name, "delay": delay, "killed": os.WIFSIGNALED(status)}),
            flush=True,
        )
    action.finish()


if __name__ == "__main__":
    stp.settings.verbosity = 0
    dask.config.set(scheduler="synchronous")  # threads do not survive a fork
    for each in ACTIONS:
        attack(each, int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) / each)
