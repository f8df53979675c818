"""A handmade cross-validation: scores, and the table that belongs to them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.models import TableModel

import stpredict as stp
from stpredict._sdata._spot_table import copy_of
from stpredict.results import COLUMNS, Failure, Protocol, Scores

#: Name of the second gene, which would run as code if it were inserted as markup.
EVIL = "</script><img src=x onerror=document.title='run'>"
GENES = ["ERBB2", EVIL, "CD74", "FASN", "MUC1"]
METHODS = ("ridge", "trees")
TRACEBACK = 'File "<stdin>", line 1\nValueError: <script>alert(1)</script>'


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def score_table(sections):
    """PCC falls with the gene; nulls are small, the ceiling is high."""
    rows = []
    for number, gene in enumerate(GENES):
        for section in sections:
            for name, value in (
                ("ridge", 0.5),
                ("trees", 0.1 + 0.2 * (number % 2)),
                ("tuned_ridge", 0.4),
                ("training_mean", 0.0),
                ("noise_ceiling", 0.9),
            ):
                if (name, section) != ("trees", "S2"):
                    rows.append((name, section, section, gene, "pcc", value - 0.05 * number))
            rows.append(("ridge", section, section, gene, "pcc_spatial_null", 0.02))
            rows.append(("ridge", section, section, gene, "rmse", 1.5))
    return pd.DataFrame(rows, columns=COLUMNS)


def out_of_fold(table, methods):
    """Measured values, and predictions of the folds; the trees failed in S2."""
    random = np.random.default_rng(0)
    measured = random.gamma(2, size=(table.n_obs, len(GENES))).astype(np.float32)
    layers = {
        name: (measured + random.normal(size=measured.shape)).astype(np.float32)
        for name in (*methods, "tuned_ridge")
    }
    if "trees" in layers:
        layers["trees"][(table.obs["region"] == "S2").to_numpy()] = np.nan
    return TableModel.parse(
        AnnData(
            measured,
            obs=table.obs[["region", "instance_id"]].assign(fold=table.obs["region"]),
            var=pd.DataFrame(index=GENES),
            layers=layers,
            uns={"stpredict": {"cross_validate": {"methods": [*methods, "tuned_ridge"]}}},
        ),
        region=["S1", "S2"],
        region_key="region",
        instance_key="instance_id",
    )


@pytest.fixture(scope="session")
def slides():
    return stp.datasets.phantom(2, size_px=400, n_morphology=2, n_neighborhood=2, n_null=1)


@pytest.fixture
def validated(slides):
    """Scores, and the object that they belong to."""
    sdata = copy_of(slides)
    sdata.tables["out_of_fold"] = out_of_fold(sdata.tables["table"], METHODS)
    protocol = Protocol(
        sections=("S1", "S2"),
        n_spots=sdata.tables["table"].n_obs,
        n_patients=None,
        n_genes={"ridge": len(GENES)},
        units="log1p",
        layer="log1p",
        group_kind="section",
        folds={"S1": ("S1",), "S2": ("S2",)},
        date="2026-01-31",
        versions={"stpredict": "0.1.0"},
    )
    scores = Scores(
        score_table(["S1", "S2"]),
        methods=METHODS,
        protocol=protocol,
        baselines=("tuned_ridge",),
        failures=(Failure("trees", "S2", "ValueError: <script>", TRACEBACK),),
    )
    return SimpleNamespace(scores=scores, sdata=sdata)
