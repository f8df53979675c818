"""Tasks of the project: ``python -m nox -s NAME``, with a name of ``nox --list``.

All sessions but ``wheel`` and ``audit`` share one virtual environment, because installing torch
takes gigabytes and minutes. The first session creates it, and it is updated when the dependencies
in ``pyproject.toml`` change. To start from scratch, delete the folder ``.nox``.

Environment variables of ``pip`` are respected: ``PIP_PRE=1`` tests pre-releases.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
BENCHMARKS = ROOT / "benchmarks"

#: One thread per process, for sessions with several processes: more threads than cores make them
#: several times slower. numba, which scanpy uses, sets the number of OpenMP threads for all
#: libraries. It reads the variable when pytest's plugins import it, so it is set here.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

#: Parts of the names of licences that dependencies may not have.
COPYLEFT = ("Affero", "AGPL", "General Public License (GPL)", "GPL-2", "GPL-3", "GPLv2", "GPLv3")
#: Dependencies under the GPL, or under several licences of which one is the GPL: scanpy's Leiden
#: clustering imports igraph and leidenalg, docutils builds the documentation, and the binaries of
#: OpenSlide are under the LGPL.
GPL_EXCEPTIONS = ("docutils", "igraph", "leidenalg", "openslide-bin")

nox.options.sessions = ["lint", "tests", "docs"]


def requirements_digest() -> str:
    """Hash of the build system and project metadata, which define the environment."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = {key: pyproject[key] for key in ("build-system", "project")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def shared_python(session: nox.Session) -> Path:
    """Python of the shared environment, which is created or updated if necessary.

    Nox creates one environment per session. The sessions here therefore have none
    (``python=False``) and call the shared one by its path.
    """
    tag = f"py{sys.version_info.major}{sys.version_info.minor}"
    location = session.cache_dir.parent.resolve() / f"shared-{tag}"
    python = location / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # written last, so that an interrupted installation is repeated
    stamp = location / "stpredict-requirements.sha256"
    digest = requirements_digest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return python
    # virtualenv is installed with nox and, unlike venv, works without ensurepip
    create = (sys.executable, "-m", "virtualenv", "--quiet", str(location))
    install = (str(python), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]")
    session.log("Installing the shared environment (several gigabytes, several minutes)")
    session.run_install(*create, external=True)
    session.run_install(*install, external=True)
    stamp.write_text(digest, encoding="utf-8")
    return python


def run(session: nox.Session, *arguments: str, settings: dict[str, str] | None = None) -> None:
    """Run the shared environment's Python, with ``settings`` as environment variables."""
    python = shared_python(session)
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    # notebooks start their kernel by name
    env = {"PATH": path, "VIRTUAL_ENV": str(python.parent.parent), **(settings or {})}
    session.run(str(python), *arguments, env=env, external=True)


@nox.session(python=False)
def demo(session: nox.Session) -> None:
    """Train on HER2+ breast tumour sections and predict another; results are in ``demo/``."""
    run(session, "demo.py", *session.posargs)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests and the examples in docstrings; arguments are passed to pytest."""
    run(session, "-m", "pytest", "--numprocesses", "auto", *session.posargs, settings=ONE_THREAD)


@nox.session(python=False)
def hostile(session: nox.Session) -> None:
    """Attack every public function and reader, and kill what writes; `tests` runs a few of each."""
    inputs = {"INPUTS": "40", "FILES": "100", "KILLS": "20"}
    amounts = {f"STPREDICT_HOSTILE_{name}": number for name, number in inputs.items()}
    run(session, "-m", "pytest", "tests/hostile", *session.posargs, settings=ONE_THREAD | amounts)


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check style and types."""
    run(session, "-m", "ruff", "check", ".")
    run(session, "-m", "ruff", "format", "--check", ".")
    run(session, "-m", "mypy")


@nox.session(python=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build/html``; warnings and cut-off pages are errors."""
    # otherwise removed pages would remain
    for folder in ("_build", "generated"):
        shutil.rmtree(ROOT / "docs" / folder, ignore_errors=True)
    options = ("--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env", "--jobs=auto")
    folders = ("docs", "docs/_build/html")
    run(session, "-m", "sphinx", *options, *session.posargs, *folders, settings=ONE_THREAD)
    run(session, "-m", "pytest", "tests/test_pages.py", settings=ONE_THREAD)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the package, install the wheel in a new environment, and use it elsewhere.

    Arguments are passed to the demo, which runs if there are any, such as ``--directory PATH``.
    """
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "dist", ignore_errors=True)
    session.install("build", "twine")
    build = ("python", "-m", "build", "--outdir")
    session.run(*build, str(folder / "dist"))  # the wheel is built from the sdist
    session.run(*build, str(folder / "dist" / "checkout"), "--wheel")
    sdist, built = (next((folder / "dist").glob(name)) for name in ("*.tar.gz", "*.whl"))
    if built.read_bytes() != (folder / "dist" / "checkout" / built.name).read_bytes():
        session.error("The sdist builds another wheel than the checkout: a file is missing in it")
    session.run("python", "-m", "twine", "check", "--strict", str(sdist), str(built))
    session.install(str(built))
    session.run("python", "-m", "pip", "check")
    with session.chdir(folder):
        session.run("python", str(ROOT / "tests" / "use_installed.py"))
        if session.posargs:
            session.run("python", str(ROOT / "demo.py"), *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Check the dependencies for vulnerabilities and licences; needs the network."""
    python = shared_python(session)
    session.install("pip-audit", "pip-licenses")
    # copyleft that would extend to users of the package, as far as a package reports its licence
    session.run(
        "pip-licenses",
        f"--python={python}",
        "--partial-match",
        f"--fail-on={';'.join(COPYLEFT)}",
        "--ignore-packages",
        *GPL_EXCEPTIONS,
    )
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = str(session.run(str(python), "-c", code, silent=True, external=True)).strip()
    session.run("pip-audit", "--skip-editable", "--path", packages, *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Update ``requirements/lock.txt`` to the newest versions of all dependencies."""
    session.install("uv")
    extras = ("--extra=explain", "--extra=notebook", "--extra=offline")
    plain = ("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links")
    # without --output-file, present versions are not kept
    compiled = ("uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11")
    text = session.run(*compiled, *extras, *plain, "pyproject.toml", silent=True, stderr=None)
    file = ROOT / "requirements" / "lock.txt"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    header = "".join(line for line in lines if line.startswith("#"))
    file.write_text(header + str(text), encoding="utf-8")


def is_running(engine: str) -> bool:
    """Whether a container engine answers; a client may be installed without one."""
    return shutil.which(engine) is not None and not subprocess.call(
        (engine, "info"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@nox.session(python=False)
def container(session: nox.Session) -> None:
    """Build the image with docker or podman, and use the package in it; arguments go to the build.

    For instance ``-- --build-arg VARIANT=cpu --build-arg TORCH_INDEX=...``.
    """
    engine = next((name for name in ("docker", "podman") if is_running(name)), None)
    if engine is None:
        session.error("docker, with its engine running, or podman must be installed")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    build = ("build", "--file", "docker/Dockerfile", "--tag", "stpredict")
    revision = str(session.run("git", "rev-parse", "HEAD", external=True, silent=True)).strip()
    options = [f"--build-arg=VERSION={project['version']}", f"--build-arg=REVISION={revision}"]
    if engine == "podman":  # the default format has no health check
        options += ["--format", "docker"]
    session.run(engine, *build, *options, *session.posargs, ".", external=True)
    script = "/use_installed.py"
    mount = f"{ROOT / 'tests' / 'use_installed.py'}:{script}:ro"
    run = (engine, "run", "--rm", "--volume", mount, "stpredict")
    session.run(*run, "python", script, external=True)


@nox.session(python=False)
def notebooks(session: nox.Session) -> None:
    """Run the notebooks of the documentation and compare their figures with the stored ones.

    Arguments are names of notebooks, and ``--write``, which stores the new outputs.
    """
    run(session, "docs/execute_notebooks.py", *session.posargs, settings=ONE_THREAD)


@nox.session(python=False)
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks named first, or all; other arguments are passed to them."""
    scripts = {path.stem: path for path in sorted(BENCHMARKS.glob("[!_]*.py"))}
    arguments = list(session.posargs)
    names = []
    while arguments and Path(arguments[0]).stem in scripts:
        names.append(Path(arguments.pop(0)).stem)
    if arguments and not names and not arguments[0].startswith("-"):
        session.error(f"No benchmark {arguments[0]!r}; benchmarks: {', '.join(scripts)}")
    for name in names or scripts:
        run(session, str(scripts[name]), *arguments)
