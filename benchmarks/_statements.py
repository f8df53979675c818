"""Run Python files in one interpreter as a user would, and record the seconds of every statement.

    python benchmarks/_statements.py RECORD.json FILE...

It imports nothing but the standard library, so that it runs in any environment.
"""

from __future__ import annotations

import ast
import json
import sys
import time
from pathlib import Path


def main(record: str, *files: str) -> None:
    names = {"__name__": "__main__"}  # where Python shows warnings about deprecated names
    rows = []
    for file in files:
        source = Path(file).read_text(encoding="utf-8")
        for statement in ast.parse(source, file).body:
            started = time.perf_counter()
            exec(compile(ast.Module([statement], []), file, "exec"), names)
            seconds = time.perf_counter() - started
            rows.append(
                {"statement": ast.get_source_segment(source, statement), "seconds": seconds}
            )
    Path(record).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
