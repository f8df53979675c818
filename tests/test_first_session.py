"""The record of a first session: what it counts, and that the README has its blocks."""

from __future__ import annotations

import json
import subprocess
import sys

STDERR = """\
/env/lib/python3.11/site-packages/docrep/decorators.py:43: SyntaxWarning: 'x' is not a valid key!
  doc = func(self, args[0].__doc__, *args[1:], **kwargs)
/env/lib/python3.11/site-packages/zarr/core.py:7: DeprecationWarning: removed in 4.0
example_0.py:4: UserWarning: tiles of S1 look unlike those of training
  stp.tl.predict(new, model)
embed:   0%|          | 0/10 [00:00<?, ?tile/s]\rembed: 100%|##########| 10/10 [00:01<00:00]
WARNING: a message of a library
  an indented line
"""


def step_of(record, statements=()):
    return record.Step("README", 1.0, "", STDERR, list(statements))


def test_warnings_are_assigned_to_packages(import_benchmark):
    warned = step_of(import_benchmark("_first_session")).warnings
    assert [(each.package, each.category) for each in warned] == [
        ("docrep", "SyntaxWarning"),
        ("zarr", "DeprecationWarning"),
        ("example_0.py", "UserWarning"),
    ]


def test_bars_and_lines_of_sources_are_not_counted(import_benchmark):
    step = step_of(import_benchmark("_first_session"))
    assert step.other_lines == ["WARNING: a message of a library", "  an indented line"]


def test_seconds_are_counted_until_the_first_prediction(import_benchmark):
    record = import_benchmark("_first_session")
    calls = ("import stpredict as stp", "stp.tl.predict(new, model)", "stp.tl.evaluate(new)")
    rows = [{"statement": call, "seconds": i} for i, call in enumerate(calls, start=2)]
    assert step_of(record, rows).to_prediction == 5
    assert step_of(record, rows[:1]).to_prediction is None
    text = record.page([step_of(record, rows)], {"torch": 1.5}, {"stpredict": "0.2.0"})
    assert "| `README` | 1.0 | 5.0 | 3 | 2 |" in text
    assert "   3.0  stp.tl.predict(new, model)\n" in text
    assert max(map(len, text.split("```")[1].splitlines())) <= record.WIDTH


def test_the_readme_has_every_block(import_benchmark):
    script = import_benchmark("first_session")
    for name, texts in script.STEPS.items():
        if name not in script.COMMANDS:
            language = "bash" if name == "command" else "python"
            assert all(text in script.block(text, language) for text in texts)


def test_statements_run_as_a_script_of_the_user(import_benchmark, tmp_path):
    script = import_benchmark("first_session")
    (tmp_path / "a.py").write_text("import warnings\nnumber = 1\n")
    (tmp_path / "b.py").write_text("warnings.warn('old', DeprecationWarning)\nnumber + 1  # two\n")
    command = [sys.executable, str(script.STATEMENTS), "record.json", "a.py", "b.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "b.py:1: DeprecationWarning: old" in done.stderr
    rows = json.loads((tmp_path / "record.json").read_text())
    assert [row["statement"] for row in rows][1::2] == ["number = 1", "number + 1"]
    assert all(row["seconds"] >= 0 for row in rows)
