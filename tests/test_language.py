"""The language of sources and documents: plain words, names for what they hold, comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import stpredict as stp

SOURCES = sorted(Path(stp.__file__).parent.rglob("*.py"))
ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs").glob("howto/*.md")),
    ROOT / "README.md",
]

#: Phrases that readers stumble over, as regular expressions; ignoring case.
PHRASES = (
    r"of which only",
    r"\bbeside\b",
    r"\bstands?\b(?! for)",
    r"\banew\b",
    r"\bmend(s|ed)?\b",
    r"\bmade again\b",
    r"\b(is|are|be|was|were) told\b",
    r"\btells?\b(?!\(|$| *#)",
    r"\bnothing that pays\b",
    r"\bcannot be told from\b",
    r"\bsilence is no\b",
    r"\bis no (proof|number|praise)\b",
    r"\blearns? from data learnt\b",
    r"\bmemory depends on\b",
    r"\bthere is no [\w-]+ in it\b",
    r"\bwhat is made of\b",
    r"^ +(?-i:Of) (the|a|AdamW)\b",
)
#: Names that do not say what a variable holds.
BANNED_NAMES = {"found", "known", "chosen", "wanted", "made"}
#: Comments per 100 lines that are not empty.
LEAST_COMMENTS = 3.0


def relative(path):
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=relative)
def test_the_language_is_plain(path):
    pattern = re.compile("|".join(PHRASES), flags=re.IGNORECASE | re.MULTILINE)
    lines = path.read_text(encoding="utf-8").splitlines()
    unclear = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(lines, start=1)
        if pattern.search(line) and not re.match(r"(from|import) ", line)
    ]
    assert not unclear, "\n".join(unclear)


def assigned_names(tree):
    """Names of variables, parameters and attributes that a source assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_variables_are_named_for_what_they_hold(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    banned = [f"{line}: {name}" for name, line in assigned_names(tree) if name in BANNED_NAMES]
    assert not banned


def test_the_sources_have_comments():
    n_lines = n_comments = 0
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        n_comments += sum(token.type == tokenize.COMMENT for token in tokens)
        n_lines += sum(bool(line.strip()) for line in text.splitlines())
    assert 100 * n_comments / n_lines >= LEAST_COMMENTS
