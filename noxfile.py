"""Tasks of the project: ``python -m nox -s demo|tests|lint|docs|benchmarks``.

All sessions share one virtual environment, because the torch stack takes gigabytes and minutes:
the first session makes it, the next ones find it ready. It is brought up to date when the
dependencies in ``pyproject.toml`` change; to start afresh, delete the folder ``.nox``.

``pip`` obeys its environment variables, as always: ``PIP_PRE=1`` tests the pre-releases.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
BENCHMARKS = ROOT / "benchmarks"

#: For sessions that run several processes: threads of one that wait for those of another take
#: several times as long as one alone. numba, which scanpy runs, gives the OpenMP threads of all
#: libraries its own number, and reads it when it is imported: pytest's plugins do that first.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

nox.options.sessions = ["lint", "tests", "docs"]


def requirements_digest() -> str:
    """Fingerprint of what decides the environment: build system and project metadata."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = {key: pyproject[key] for key in ("build-system", "project")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def shared_python(session: nox.Session) -> Path:
    """Python of the shared environment, which is made or brought up to date where need be.

    Nox ties an environment to a session's name. These sessions therefore ask for none
    (``python=False``) and call this one by its path.
    """
    tag = f"py{sys.version_info.major}{sys.version_info.minor}"
    location = session.cache_dir.parent.resolve() / f"shared-{tag}"
    python = location / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # Written last, so an installation that was interrupted is taken up again.
    stamp = location / "stpredict-requirements.sha256"
    digest = requirements_digest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return python
    # virtualenv comes with nox, and does without the ensurepip that some systems leave out.
    make = (sys.executable, "-m", "virtualenv", "--quiet", str(location))
    install = (str(python), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]")
    session.log("Installing the shared environment: some gigabytes, some minutes")
    session.run_install(*make, external=True)
    session.run_install(*install, external=True)
    stamp.write_text(digest, encoding="utf-8")
    return python


def run(session: nox.Session, *arguments: str, settings: dict[str, str] | None = None) -> None:
    """Run the shared environment's Python, with ``settings`` in the environment."""
    python = shared_python(session)
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    # For programs that are started by name from within, as notebooks start their kernel.
    env = {"PATH": path, "VIRTUAL_ENV": str(python.parent.parent), **(settings or {})}
    session.run(str(python), *arguments, env=env, external=True)


@nox.session(python=False)
def demo(session: nox.Session) -> None:
    """Train on HER2+ breast tumour sections, predict another; results in ``demo/``."""
    run(session, "demo.py", *session.posargs)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests and the examples of the docstrings; arguments go to pytest."""
    run(session, "-m", "pytest", "--numprocesses", "auto", *session.posargs, settings=ONE_THREAD)


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check style and types."""
    run(session, "-m", "ruff", "check", ".")
    run(session, "-m", "ruff", "format", "--check", ".")
    run(session, "-m", "mypy")


@nox.session(python=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build/html``; a warning is an error."""
    # Pages of names that are no more would linger.
    shutil.rmtree(ROOT / "docs" / "generated", ignore_errors=True)
    options = ("--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env", "--jobs=auto")
    where = ("docs", "docs/_build/html")
    run(session, "-m", "sphinx", *options, *session.posargs, *where, settings=ONE_THREAD)


@nox.session(python=False)
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks that the first arguments name, or all; the rest is passed to them."""
    known = {path.stem: path for path in sorted(BENCHMARKS.glob("[!_]*.py"))}
    arguments = list(session.posargs)
    chosen = []
    while arguments and Path(arguments[0]).stem in known:
        chosen.append(Path(arguments.pop(0)).stem)
    if arguments and not chosen and not arguments[0].startswith("-"):
        session.error(f"No benchmark {arguments[0]!r}; there are: {', '.join(known)}")
    for name in chosen or known:
        run(session, str(known[name]), *arguments)
