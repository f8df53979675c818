"""Examples in docstrings run with messages turned off, and leave the registries unchanged."""

from __future__ import annotations

import doctest
from collections.abc import Iterator

import pytest

import stpredict as stp


@pytest.fixture(autouse=True)
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn messages off, which an example would have to list as its output."""
    if isinstance(getattr(request.node, "dtest", None), doctest.DocTest):
        monkeypatch.setattr(stp.settings, "verbosity", 0)
        if request.node.name.endswith(".register"):
            request.getfixturevalue("registries")


@pytest.fixture
def registries() -> Iterator[None]:
    """Remove the encoders, metrics and methods that a test registers."""
    from stpredict.encoders._registry import RECORDS
    from stpredict.metrics import METRICS
    from stpredict.models._methods import METHODS

    registries = (RECORDS, METRICS, METHODS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, records in zip(registries, before, strict=True):
        registry.clear()
        registry.update(records)
