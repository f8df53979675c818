"""Files of a published release: weights, hyperparameters, table of genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stpredict import _validate

#: Names under which DeepSpot's files are published; something may stand before them.
WEIGHTS, HYPERPARAMETERS, GENES = (
    "final_model.pkl",
    "top_param_overall.yaml",
    "info_highly_variable_genes.csv",
)
_NAME, _PREDICTED = "gene_name", "isPredicted"
_MAX_YAML = 1 << 20
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True)
class Files:
    """Where the parts of a release are."""

    weights: Path
    hyperparameters: Path | None
    genes: Path | tuple[str, ...]


def find(
    weights: str | Path,
    hyperparameters: str | Path | None,
    genes: str | Path | Sequence[str] | None,
) -> Files:
    """Find what is not given beside the weights.

    Raises
    ------
    FileNotFoundError
        If a file that is given is not there.
    ValueError
        If several files could be meant, or there is no table of genes.
    """
    path = Path(weights)
    if path.is_dir():
        path = _only_weights(path)
    _require_file(path, "weights")
    settings = _given_or_beside(path, hyperparameters, HYPERPARAMETERS, "hyperparameters")
    if genes is not None and not isinstance(genes, str | Path):
        return Files(path, settings, tuple(genes))
    table = _given_or_beside(path, genes, GENES, "genes")
    if table is None:
        raise ValueError(
            f"there is no table of genes beside {path}, and without it the outputs have no names: "
            f"pass genes=, the release's {GENES} (columns {_NAME}, {_PREDICTED}) or a list of "
            "names in the order of the outputs"
        )
    return Files(path, settings, table)


def _only_weights(folder: Path) -> Path:
    found = sorted(folder.glob("*.pkl"))
    if len(found) != 1:
        there = _validate.listing(file.name for file in sorted(folder.iterdir()))
        raise ValueError(
            f"{folder} has {len(found)} files *.pkl, one release has one; pass the path of the "
            f"file itself. There are: {there}"
        )
    return found[0]


def _require_file(path: Path, argument: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{argument}= names no file: {path}")


def _given_or_beside(
    weights: Path, given: str | Path | None, published: str, argument: str
) -> Path | None:
    if given is not None:
        _require_file(Path(given), argument)
        return Path(given)
    prefix = weights.name.removesuffix(WEIGHTS) if weights.name.endswith(WEIGHTS) else ""
    for name in (prefix + published, published):
        if (weights.parent / name).is_file():
            return weights.parent / name
    others = sorted(weights.parent.glob(f"*{Path(published).suffix}"))
    if len(others) > 1:
        raise ValueError(
            f"several files beside {weights} may be its {argument}: "
            f"{_validate.listing(file.name for file in others)}; pass {argument}="
        )
    return others[0] if others else None


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """Read the numbers and strings of a YAML file."""
    if path.stat().st_size > _MAX_YAML:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; hyperparameters are few")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no YAML of hyperparameters ({reason[:200]})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no hyperparameters but a {type(values).__name__}")
    # nothing nested: a few lines of aliases can stand for gigabytes
    return {
        str(name): value
        for name, value in values.items()
        if isinstance(name, str) and (value is None or isinstance(value, str | int | float))
    }


def read_genes(genes: Path | tuple[str, ...], *, n_outputs: int, weights: Path) -> tuple[str, ...]:
    """Read the names of the outputs: those of a table that are predicted, in its order."""
    if isinstance(genes, Path):
        names, source = _predicted(genes), str(genes)
    else:
        names, source = tuple(str(gene) for gene in genes), "genes="
    if len(names) != n_outputs:
        raise ValueError(
            f"{source} names {len(names)} genes, {weights} predicts {n_outputs}: pass genes= of "
            "the same release"
        )
    _validate.unique_names(names, what=f"genes of {source}")
    return names


def _predicted(path: Path) -> tuple[str, ...]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is no table of genes ({error})") from error
    missing = [name for name in (_NAME, _PREDICTED) if name not in table]
    if missing:
        raise ValueError(
            f"the table of genes {path} lacks {', '.join(missing)}; it has "
            f"{_validate.listing(table.columns)}"
        )
    flags = table[_PREDICTED].str.strip().str.lower()
    odd = sorted(set(flags) - {*_TRUE, *_FALSE})
    if odd:
        raise ValueError(f"{_PREDICTED} of {path} must be True or False: {_validate.listing(odd)}")
    return tuple(table.loc[flags.isin(_TRUE), _NAME])
