"""Files of a published release: weights, hyperparameters, table of genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stpredict import _validate

#: Names of DeepSpot's published files; they may have a prefix.
WEIGHTS, HYPERPARAMETERS = "final_model.pkl", "top_param_overall.yaml"
GENES = "info_highly_variable_genes.csv"
_NAME, _PREDICTED = "gene_name", "isPredicted"
_MAX_YAML = 1 << 16  # published files have less than 1 kB
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def find(
    weights: str | Path,
    hyperparameters: str | Path | None,
    genes: str | Path | Sequence[str] | None,
) -> tuple[Path, Path | None, Path | tuple[str, ...]]:
    """Find the files of a release; those not given are looked for next to the weights."""
    path = Path(weights)
    if path.is_dir():
        pickles = sorted(path.glob("*.pkl"))
        if len(pickles) != 1:
            files = _validate.listing(file.name for file in sorted(path.iterdir()))
            raise ValueError(f"{path} has {len(pickles)} files *.pkl, pass one of them: {files}")
        (path,) = pickles
    path = _existing(path, "weights")
    settings = _file_of(path, hyperparameters, HYPERPARAMETERS, "hyperparameters")
    if genes is not None and not isinstance(genes, str | Path):
        return path, settings, tuple(genes)
    table = _file_of(path, genes, GENES, "genes")
    if table is None:
        raise ValueError(
            f"no table of genes was found next to {path}: pass genes=, the release's {GENES} "
            f"(columns {_NAME}, {_PREDICTED}) or the names in the order of the outputs"
        )
    return path, settings, table


def _existing(path: str | Path, argument: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{argument}= is not a file: {file}")
    return file


def _file_of(weights: Path, path: str | Path | None, published: str, argument: str) -> Path | None:
    """Path of a part of a release: as passed, else found next to the weights."""
    if path is not None:
        return _existing(path, argument)
    prefix = weights.name.removesuffix(WEIGHTS) if weights.name.endswith(WEIGHTS) else ""
    for name in (prefix + published, published):
        if (weights.parent / name).is_file():
            return weights.parent / name
    candidates = sorted(weights.parent.glob(f"*{Path(published).suffix}"))
    if len(candidates) > 1:
        names = _validate.listing(file.name for file in candidates)
        raise ValueError(
            f"several files next to {weights} may be its {argument}: {names}; pass {argument}="
        )
    return candidates[0] if candidates else None


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """Read the numbers and strings in a YAML file."""
    if path.stat().st_size > _MAX_YAML:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, the limit is {_MAX_YAML:,}")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_references(text)
        values = yaml.safe_load(text)
    # numbers and dates out of range raise the other types
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a valid YAML file ({reason[:200]})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, expected named hyperparameters")
    return flat_values(values)


def _refuse_references(text: str) -> None:
    """Refuse aliases and merge keys, by which a few lines expand to gigabytes."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        is_merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<"
        if isinstance(event, yaml.AliasEvent) or is_merge:
            raise ValueError("aliases and merge keys are refused, write the values themselves")


def flat_values(values: Any) -> dict[str, Any]:
    """Numbers and strings of a mapping; empty for anything else."""
    if not isinstance(values, Mapping):
        return {}
    return {
        name: value
        for name, value in values.items()
        if isinstance(name, str) and (value is None or isinstance(value, str | int | float))
    }


def read_genes(genes: Path | tuple[str, ...], *, n_outputs: int, weights: Path) -> tuple[str, ...]:
    """Read the names of the outputs: the predicted genes of a table, in its order."""
    source = genes if isinstance(genes, Path) else "genes="
    names = _predicted(genes) if isinstance(genes, Path) else tuple(str(gene) for gene in genes)
    if len(names) != n_outputs:
        message = f"{source} has {len(names)} genes, {weights} predicts {n_outputs}"
        raise ValueError(f"{message}: pass genes= of the same release")
    _validate.unique_names(names, what=f"genes of {source}")
    return names


def _predicted(path: Path) -> tuple[str, ...]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of genes ({error})") from error
    missing = [name for name in (_NAME, _PREDICTED) if name not in table]
    if missing:
        columns = _validate.listing(table.columns)
        raise ValueError(f"the table of genes {path} lacks {', '.join(missing)}; it has {columns}")
    flags = table[_PREDICTED].str.strip().str.lower()
    unknown = sorted(set(flags) - {*_TRUE, *_FALSE})
    if unknown:
        values = _validate.listing(unknown)
        raise ValueError(f"{_PREDICTED} of {path} must be True or False: {values}")
    return tuple(table.loc[flags.isin(_TRUE), _NAME])
