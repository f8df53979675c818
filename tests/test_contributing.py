"""The files printed in the contributor's guide work as they are, next to those of the package."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import PLSRegression

import stpredict as stp
from helpers import prepared_phantom
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import METHODS

GUIDE = Path(__file__).parents[1] / "docs" / "contributing.md"
BLOCK = re.compile(r"^```\{code-block\} python\n:caption: (\S+)\n\n(.*?)^```$", re.DOTALL | re.M)
FILES = dict(BLOCK.findall(GUIDE.read_text(encoding="utf-8")))


@pytest.fixture
def file_of(tmp_path, monkeypatch, registries):
    """Import one of the files of the guide."""
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    return importlib.import_module


def sections(encoder="texture"):
    design = {"size_px": 500, "n_morphology": 3, "n_neighborhood": 2, "n_null": 2}
    return prepared_phantom(2, design, select={"n_top_genes": 4}, encoder=encoder)


def test_the_guide_has_an_encoder_a_metric_and_a_method():
    assert list(FILES) == ["_colour_quantiles.py", "_concordance.py", "_fit_pls.py"]


def test_the_files_work_in_the_package_with_one_line_each(tmp_path):
    package = shutil.copytree(Path(stp.__file__).parent, tmp_path / "stpredict")
    for name, folder, defined in (
        ("_colour_quantiles.py", "encoders", "ColourQuantiles"),
        ("_concordance.py", "metrics", "concordance"),
        ("_fit_pls.py", "tl", "fit_pls"),
    ):
        (package / folder / name).write_text(FILES[name], encoding="utf-8")
        file = package / folder / "__init__.py"
        docstring, _, rest = file.read_text(encoding="utf-8").partition("\n")
        line = f"from stpredict.{folder}.{Path(name).stem} import {defined}"
        # the first import, as sorting by name could place it
        file.write_text(f"{docstring}\n\n{line}\n{rest}", encoding="utf-8")
    code = """
import stpredict as stp

assert stp.__file__.startswith(PLACE), stp.__file__
assert "colour_quantiles" in stp.encoders.names()
assert stp.metrics.METRICS["concordance"].function is not None
assert callable(stp.tl.fit_pls)
"""
    code = code.replace("PLACE", repr(str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)


def test_the_encoder_embeds_by_name_and_prepares_new_sections(file_of):
    with pytest.raises(KeyError, match="No encoder 'colour_quantiles'"):
        stp.encoders.record("colour_quantiles")
    file_of("_colour_quantiles")
    assert stp.encoders.table().loc["colour_quantiles", "licence"] == "MIT"
    sdata = sections("colour_quantiles")
    assert sdata["table"].obsm["X_colour_quantiles"].shape == (sdata["table"].n_obs, 15)
    tiles = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    expected = np.quantile(tiles.numpy(), (0.05, 0.25, 0.5, 0.75, 0.95), axis=(2, 3))
    network = stp.encoders.record("colour_quantiles").build()
    np.testing.assert_allclose(network(tiles).reshape(2, 3, 5), expected.transpose(1, 2, 0), 1e-5)

    model = stp.tl.fit_ridge(sdata, embedding="X_colour_quantiles")
    new = stp.datasets.phantom(1, size_px=500, mpp=0.5, pitch_um=40.0, seed=7)
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    assert np.isfinite(new["predicted"].X).all()


def test_the_metric_is_part_of_an_evaluation(file_of):
    file_of("_concordance")
    sdata = sections()
    stp.tl.predict(sdata, stp.tl.fit_ridge(sdata))
    scores = stp.tl.evaluate(sdata)
    table = scores.table.query("method == 'predicted' and metric == 'concordance'")
    assert len(table) == 2 * 4  # sections and genes
    rows = open_table(sdata).section_of_row == table["section"].iloc[0]
    gene = table["gene"].iloc[0]
    measured = sdata["table"][rows, gene].layers["log1p"].toarray().ravel()
    predicted = np.asarray(sdata["predicted"][rows, gene].X).ravel()
    # Lin 1989, equation 1
    expected = 2 * np.cov(measured, predicted, ddof=0)[0, 1]
    expected /= measured.var() + predicted.var() + (measured.mean() - predicted.mean()) ** 2
    assert table["value"].iloc[0] == pytest.approx(expected, rel=1e-5)
    assert "concordance" in scores.genes().columns


def test_the_method_is_saved_loaded_and_cross_validated(file_of, tmp_path):
    fit_pls = file_of("_fit_pls").fit_pls
    sdata = sections()
    model = fit_pls(sdata, context="spot", n_components=3)
    stp.tl.predict(sdata, model)
    spots = sdata["table"]
    features = model.inputs.transform(spots.obsm["X_texture"])
    values = spots[:, list(model.genes)].layers["log1p"].toarray()
    scale = values.std(axis=0)
    pls = PLSRegression(3, scale=False).fit(features, values / scale)
    expected = np.maximum(pls.predict(features) * scale, 0)
    np.testing.assert_allclose(sdata["predicted"].X, expected, atol=1e-4)

    model.save(tmp_path / "pls")
    loaded = stp.models.load(tmp_path / "pls")
    assert loaded.hyperparameters == model.hyperparameters
    stp.tl.predict(sdata, loaded, key_added="loaded")
    np.testing.assert_array_equal(sdata["loaded"].X, sdata["predicted"].X)
    scores = stp.tl.cross_validate(sdata, {"pls": fit_pls})
    assert np.isfinite(scores.summary().loc["pls", "pcc"])


def test_a_model_of_an_unregistered_method_is_refused(file_of, tmp_path):
    file_of("_fit_pls").fit_pls(sections(), n_components=2).save(tmp_path / "pls")
    del METHODS["pls"]
    with pytest.raises(ValueError, match="'pls'"):
        stp.models.load(tmp_path / "pls")


@pytest.mark.parametrize("name", ["pcc", "2nd", "per gene", ""])
def test_names_that_cannot_be_registered_are_refused(name, registries):
    before = dict(stp.metrics.METRICS)
    metric = stp.metrics.Metric(name, "label", function=lambda pair: pair.difference.max(axis=1))
    with pytest.raises(ValueError, match="name"):
        stp.metrics.register(metric)
    assert dict(stp.metrics.METRICS) == before


def test_names_of_encoders_and_methods_of_the_package_are_refused(registries):
    for name in ("texture", "inception"):  # the second is another name of inception_v3
        with pytest.raises(ValueError, match="another name"):
            stp.encoders.register(stp.encoders.EncoderRecord(name, torch.nn.Flatten))
    for name in ("ridge", "deepspotm"):
        method = stp.models.Method(name, stp.nn.LinearSets, {"spot": (False, False)})
        with pytest.raises(ValueError, match="another name"):
            stp.models.register(method)


def test_a_metric_over_the_wrong_axis_is_refused(registries):
    metric = stp.metrics.Metric("bias", "bias", function=lambda pair: pair.difference.mean(axis=0))
    with pytest.raises(ValueError, match=r"number for each gene.*shape \(3,\)"):
        stp.metrics.register(metric)
    with pytest.raises(TypeError, match="no function"):
        stp.metrics.register(stp.metrics.Metric("bias", "bias"))


def test_a_registration_that_runs_again_replaces_the_first(registries):
    for factor in (1, 2):
        function = lambda pair, factor=factor: factor * pair.difference.mean(axis=1)  # noqa: E731
        stp.metrics.register(stp.metrics.Metric("bias", "bias", function=function))
    scores = stp.metrics.per_gene([[0.0], [4.0]], [[1.0], [5.0]], names=["bias"])
    np.testing.assert_allclose(scores["bias"], 2)
