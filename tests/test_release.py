"""What a release consists of agrees: versions, licences, metadata and workflows."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Absent in an sdist.
GITHUB = ROOT / ".github"
in_checkout = pytest.mark.skipif(not GITHUB.is_dir(), reason="needs a checkout of the repository")


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_versions_agree():
    citation = read_yaml(ROOT / "CITATION.cff")
    assert str(citation["version"]) == PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\](?: - (\S+))?$", changelog, flags=re.MULTILINE)
    if newest[1] != "Unreleased":
        assert newest[1] == PROJECT["version"]
        assert str(citation["date-released"]) == newest[2]


def requirement_names(requirements):
    """Name and least version of each requirement, as on the package index."""
    on_index = {
        "dask-core": "dask",
        "matplotlib-base": "matplotlib",
        "python-igraph": "igraph",
        "pytorch": "torch",
    }
    parts = [re.fullmatch(r"([\w.-]+) ?(>=[\w.,<]+)?", one).groups() for one in requirements]
    return {on_index.get(name, name): least for name, least in parts}


def rendered_recipe():
    """The recipe, whose only templates are assignments of text and their names."""
    text = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    for name, value in re.findall(r'\{% set (\w+) = "(.+)" %\}', text):
        text = text.replace("{{ " + name + " }}", value)
    return yaml.safe_load(re.sub(r"\{%.*%\}", "", text).replace("{{ PYTHON }}", "python"))


@in_checkout
def test_the_conda_recipe_has_the_requirements_of_the_package():
    recipe = rendered_recipe()
    assert recipe["package"] == {"name": "stpredict", "version": PROJECT["version"]}
    least = requirement_names(recipe["requirements"]["run"])
    assert least.pop("python") == PROJECT["requires-python"]
    assert least == requirement_names(PROJECT["dependencies"])
    (command,) = recipe["build"]["entry_points"]
    assert command == f"stpredict = {PROJECT['scripts']['stpredict']}"


@in_checkout
def test_the_conda_environment_has_the_requirements_of_the_package():
    *packages, _, by_pip = read_yaml(ROOT / "environment.yml")["dependencies"]
    least = requirement_names(packages)
    assert least.pop("python").startswith(PROJECT["requires-python"])
    expected = requirement_names(PROJECT["dependencies"])
    del expected["wsidata"]  # of pip
    assert least == expected
    assert by_pip == {"pip": ["--editable ."]}


@in_checkout
def test_the_lock_file_has_a_version_that_fits_of_every_requirement():
    text = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
    assert "://" not in text
    extras = PROJECT["optional-dependencies"]
    locked = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(str(one.specifier).startswith("==") for one in locked)
    optional = [*extras["explain"], *extras["notebook"], *extras["offline"]]
    for line in [*PROJECT["dependencies"], *optional]:
        required = Requirement(line)
        versions = [
            str(one.specifier).removeprefix("==")
            for one in locked
            if canonicalize_name(one.name) == canonicalize_name(required.name)
        ]
        assert versions, required
        assert all(required.specifier.contains(version) for version in versions), required


@in_checkout
def test_the_image_is_pinned_has_no_root_and_needs_a_token():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE=\S+:[\w.-]+@sha256:[0-9a-f]{64}$", dockerfile, flags=re.MULTILINE)
    commands = [line.split()[0] for line in dockerfile.splitlines() if line[:1].isupper()]
    assert "HEALTHCHECK" in commands
    assert "\nUSER stpredict\n" in dockerfile
    assert "token=" not in dockerfile.lower().replace("jupyter_token", "")
    for service in read_yaml(ROOT / "compose.yaml")["services"].values():
        assert service["ports"] == ["127.0.0.1:8888:8888"]
        assert service["environment"]["JUPYTER_TOKEN"].startswith("${JUPYTER_TOKEN:?")


@in_checkout
def test_licences_agree():
    assert PROJECT["license"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert read_yaml(ROOT / "CITATION.cff")["license"] == "MIT"
    assert json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))["license"] == "MIT"
    assert read_yaml(GITHUB / "scverse" / "meta.yaml")["license"] == "MIT"


@in_checkout
def test_actions_are_pinned_by_the_hash_of_their_commit():
    lines = [
        line.strip()
        for path in sorted((GITHUB / "workflows").glob("*.yaml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    pinned = re.compile(r"(- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert len(lines) > 10
    assert not [line for line in lines if not pinned.fullmatch(line)]
    versions = {}
    for line in lines:
        action, _, version = line.partition("@")
        versions.setdefault(action.removeprefix("- "), set()).add(version)
    assert all(len(each) == 1 for each in versions.values())


@in_checkout
def test_sessions_and_benchmarks_that_files_name_exist():
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^@nox\.session.*\ndef (\w+)\(", noxfile, flags=re.MULTILINE))
    files = [ROOT / ".ci" / "run", ROOT / "README.md", ROOT / "noxfile.py"]
    files += [*GITHUB.rglob("*.yaml"), *GITHUB.rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert {"audit", "hostile", "lint", "tests", "wheel"} <= sessions
    assert set(re.findall(r"nox -s (\w+)", text)) - {"NAME"} <= sessions
    benchmarks = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")}
    assert set(re.findall(r"nox -s benchmarks -- (\w+)", text)) <= benchmarks


@in_checkout
def test_every_workflow_has_read_access_only_by_default():
    for path in sorted((GITHUB / "workflows").glob("*.yaml")):
        workflow = read_yaml(path)
        assert workflow["permissions"] == {"contents": "read"}, path.name
        for name, job in workflow["jobs"].items():
            extra = dict(job.get("permissions", {}))
            extra.pop("contents", None)
            assert set(extra) <= {"id-token"}, (path.name, name)


@in_checkout
def test_the_tests_run_on_every_python_of_the_classifiers_and_on_three_systems():
    matrix = read_yaml(GITHUB / "workflows" / "test.yaml")["jobs"]["test"]["strategy"]["matrix"]
    classifier = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    versions = [each[1] for each in map(classifier.fullmatch, PROJECT["classifiers"]) if each]
    assert matrix["python"] == versions
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
