"""Use an installed package as a new user would: ``nox -s wheel`` runs this outside of the checkout.

It needs neither the network nor a data set, and no package that only the tests need.
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import metadata, version
from importlib.resources import files
from pathlib import Path

import stpredict as stp

#: Files of the package that are not Python code.
DATA = ("py.typed", "datasets/her2st_blobs.tsv")
REPORT = ("report.css", "report.html", "report.js", "slides.html")
DATA += tuple(f"report/{name}" for name in REPORT)
MODEL = ("README.md", "config.json", "history.csv", "model.safetensors")
DATA += tuple(f"datasets/example_model/{name}" for name in MODEL)


def main() -> None:
    """Check the installation, then train, save, predict, score and report on synthetic sections."""
    place = Path(stp.__file__).resolve()
    assert place.is_relative_to(Path(sys.prefix).resolve()), f"not the installed package: {place}"
    assert stp.__version__ == version("stpredict")
    assert metadata("stpredict")["License-Expression"] == "MIT"
    assert metadata("stpredict").get_all("License-File") == ["LICENSE"]
    missing = [name for name in DATA if not files("stpredict").joinpath(name).is_file()]
    assert not missing, f"the package lacks {missing}"
    for command in (["--help"], ["predict", "--help"], ["doctor"]):
        subprocess.run([sys.executable, "-m", "stpredict", *command], check=True)

    started = time.monotonic()
    train = stp.datasets.phantom(2, size_px=800)
    stp.pp.normalize(train)
    stp.pp.select_genes(train, n_top_genes=4)
    stp.pp.embed(train)
    stp.pp.neighbors(train)
    stp.tl.fit_ridge(train).save("model")
    model = stp.models.load("model")
    new = stp.datasets.phantom(1, size_px=800, seed=5)
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    scores = stp.tl.evaluate(new)
    stp.report.write_html(new, scores, "report.html")
    assert Path("report.html").stat().st_size > 10_000
    assert stp.datasets.example_model().genes
    print(f"{place}: trained, predicted and reported in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
