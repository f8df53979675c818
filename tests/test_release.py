"""What a release consists of agrees: versions, licences, metadata and workflows."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

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
