"""Nothing works on Linux only: modules, functions of the system, and encodings of its terminals."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stpredict as stp
from stpredict import _atomic

ROOT = Path(stp.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
#: Modules of POSIX systems.
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
#: What sources use of ``os``, which Windows has, too.
PORTABLE = {"PathLike", "environ", "fdopen", "getpid", "link", "sep", "strerror"}
#: Functions of ``os`` that sources use after a check that they exist.
CHECKED = {"posix_fallocate"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_needs_a_posix_system(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in tree.body  # not inside functions, which handle their absence
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert not imported & POSIX
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os"
    }
    assert used <= PORTABLE | CHECKED
    for name in used & CHECKED:
        assert f'hasattr(os, "{name}")' in ast.unparse(tree).replace("'", '"')


@pytest.mark.parametrize("n_refused", [0, 3, 1000])
def test_a_file_that_another_process_reads_on_windows_is_replaced_later(
    n_refused, tmp_path, monkeypatch
):
    file = tmp_path / "record.json"
    file.write_text("old", encoding="utf-8")
    replace, calls, waits = Path.replace, [], []

    def refuse(path, target):
        calls.append(path)
        if len(calls) <= n_refused:
            raise PermissionError(13, "The process cannot access the file")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(_atomic.sys, "platform", "win32")
    monkeypatch.setattr(_atomic.time, "sleep", waits.append)
    if n_refused == 1000:
        with pytest.raises(PermissionError), _atomic.replaced(file) as text:
            text.write("new")
    else:
        with _atomic.replaced(file) as text:
            text.write("new")
    monkeypatch.undo()
    assert file.read_text(encoding="utf-8") == ("old" if n_refused == 1000 else "new")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert len(waits) == min(n_refused, 40)


def test_a_file_that_cannot_be_replaced_is_reported_at_once_on_other_systems(tmp_path, monkeypatch):
    def refuse(path, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(_atomic.time, "sleep", lambda seconds: pytest.fail("waits"))
    monkeypatch.setattr(_atomic.sys, "platform", "linux")
    with pytest.raises(PermissionError), _atomic.replaced(tmp_path / "record.json") as text:
        text.write("new")


#: A Windows computer as far as it can be imitated: no POSIX modules, no /proc, another encoding.
PROGRAM = """
import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

sys.modules |= dict.fromkeys(["fcntl", "grp", "pwd", "resource", "termios"])
warnings.filterwarnings("ignore", module="filelock")  # takes another kind of lock
import stpredict

for module in pkgutil.walk_packages(stpredict.__path__, "stpredict."):
    if module.name != "stpredict.__main__":
        importlib.import_module(module.name)
from stpredict._runtime import peak_memory

is_file = Path.is_file
Path.is_file = lambda path: path.parts[1:2] != ("proc",) and is_file(path)
assert peak_memory() != peak_memory()  # missing
Path.is_file = is_file
sys.argv = ["stpredict", "predict", "--help"]
from stpredict.cli import main

main()
"""


def test_everything_imports_and_the_help_prints_without_posix_and_unicode(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--pitch-um" in done.stdout
    assert "?m per pixel" in done.stdout  # µ
