"""`import stpredict` is light, and every public name exists."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib.resources import files

import pytest

import stpredict as stp

MODULES = sorted(module.name for module in pkgutil.walk_packages(stp.__path__, prefix="stpredict."))
SLOW = ("captum", "torch", "torchvision", "squidpy", "scanpy", "lightning", "timm", "transformers")


def in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_slow():
    loaded = in_fresh_process(
        "import sys, stpredict\n"
        "stpredict.settings.verbosity, stpredict.__version__, dir(stpredict)\n"
        f"print(*[name for name in {SLOW!r} if name in sys.modules])"
    )
    assert loaded == ""


def test_what_only_some_functions_need_loads_when_it_is_first_used():
    loaded = in_fresh_process(
        "import sys, stpredict.tl, stpredict.pl\n"
        "corners = {'captum', 'lightning', 'scanpy', 'squidpy', 'torchmetrics', 'torchvision'}\n"
        "print(*corners & set(sys.modules))"
    )
    assert loaded == ""


def test_modules_load_when_they_are_first_used():
    loaded = in_fresh_process(
        "import sys, stpredict as stp\n"
        "assert 'stpredict.metrics' not in sys.modules\n"
        "print(callable(stp.metrics.pcc), 'stpredict.metrics' in sys.modules)"
    )
    assert loaded == "True True"


@pytest.mark.parametrize("name", ["stpredict", *MODULES])
def test_every_public_name_exists(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for attribute in names:
        assert getattr(module, attribute) is not None


@pytest.mark.parametrize(
    "name",
    [
        "datasets",
        "encoders",
        "io",
        "metrics",
        "models",
        "nn",
        "pl",
        "pp",
        "report",
        "results",
        "targets",
        "tl",
        "uncertainty",
    ],
)
def test_every_public_module_lists_its_names(name):
    module = getattr(stp, name)
    # constants, classes, functions: the order in which ruff sorts them
    by_kind = sorted(
        module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    assert module.__all__ == by_kind
    assert module.__doc__
    public = {key for key, value in vars(module).items() if _defined_here(key, value)}
    assert public <= set(module.__all__)


def _defined_here(name: str, value: object) -> bool:
    """Whether it is a public function or class of the package."""
    in_package = str(getattr(value, "__module__", "")).startswith("stpredict")
    return not name.startswith("_") and in_package


def test_dir_lists_all_modules():
    assert set(stp.__all__) <= set(dir(stp))
    for name in dir(stp):
        getattr(stp, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'stpredict' has no attribute 'fit_deepspot'"):
        stp.fit_deepspot  # noqa: B018


def test_the_package_is_marked_as_typed():
    assert files("stpredict").joinpath("py.typed").is_file()


def test_the_session_can_be_silenced(capsys, monkeypatch):
    from stpredict import _log

    log = getattr(_log, "info", None) or _log.info
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    log("hidden")
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    log("printed")
    assert capsys.readouterr().out == "printed\n"
