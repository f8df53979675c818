"""Models from disk: checked JSON, safetensors, CSV. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.models._config import FORMAT, OLDEST, SHARED, VERSION, Config
from stpredict.models._folder import CONFIG, HISTORY, WEIGHTS, ModelFolder
from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._network import open_arrays, read_network
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.models._stack import check_bases, first_base
from stpredict.models._upgrade import upgrade
from stpredict.targets import from_state
from stpredict.uncertainty import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.models._network import SavedArrays

#: A configuration of 20,000 genes has less than 1 MB.
_MAX_CONFIG = 64 << 20
#: Stacks inside of stacks.
_MAX_DEPTH = 5
_HISTORY_TYPES = dict(
    zip(HISTORY_COLUMNS, ("int64", "int64", "int64", "str", "float64"), strict=True)
)


@checked
def load(path: str | Path) -> Model:
    """Load a model saved with :meth:`stpredict.models.Model.save`.

    Only JSON, safetensors and CSV are read, and checked; nothing is executed.

    Parameters
    ----------
    path
        Folder of the model.

    Returns
    -------
    Model
        Predicts bit-identically to the model that was saved, on the same device.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If the path is not a string or a path.
    ValueError
        If the folder is not a model, is damaged, or was written by a newer version. Sizes are
        compared with those of the saved arrays before memory is allocated.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001"], alpha=1.0, context="spot")
    >>> model.save(folder := f"{mkdtemp()}/ridge")
    >>> stp.models.load(folder).method
    'ridge'
    """
    path = Path(path)
    if path.is_file():
        raise ValueError(f"{path} is a file, not a model's folder: pickled models are never opened")
    return _load(ModelFolder.at(path), depth=0)


def _load(folder: ModelFolder, *, depth: int) -> Model:
    if not folder.path.exists() and not folder.committed.exists():
        raise FileNotFoundError(f"there is no model at {folder.path}")
    missing = [name for name in (CONFIG, WEIGHTS, HISTORY) if not folder.file(name).is_file()]
    if missing:
        raise ValueError(f"{folder.path} is not a complete model: it lacks {', '.join(missing)}")
    try:
        config = _read_config(folder.file(CONFIG))
        if config.bases and depth == _MAX_DEPTH:
            raise ValueError(f"its stacks are more than {_MAX_DEPTH} deep")
        bases = {
            name: _load(folder.base(n), depth=depth + 1) for n, name in enumerate(config.bases)
        }
        history = _read_history(folder.file(HISTORY))
        with open_arrays(folder.file(WEIGHTS)) as saved:
            return _assemble(config, saved, history, bases)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        # a KeyError would be printed in quotes
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise ValueError(f"the model at {folder.path} cannot be read: {reason}") from error


def _read_config(path: Path) -> Config:
    n_bytes = path.stat().st_size
    if n_bytes > _MAX_CONFIG:
        raise ValueError(f"{CONFIG} has {n_bytes:,} bytes, the limit is {_MAX_CONFIG:,}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{CONFIG} does not describe an {FORMAT}")
    version = config.get("format_version")
    if not isinstance(version, int) or not OLDEST <= version <= VERSION:
        remedy = "fit it again" if version in range(OLDEST) else "upgrade"
        raise ValueError(
            f"its format version is {version!r}, this stpredict reads {OLDEST} to {VERSION}. It "
            f"was written by stpredict {config.get('stpredict_version')}: {remedy}"
        )
    return Config.from_plain(config if version == VERSION else upgrade(config))


def _read_history(path: Path) -> pd.DataFrame:
    columns = ", ".join(HISTORY_COLUMNS)
    try:
        names = tuple(pd.read_csv(path, nrows=0).columns)
        is_of_one_network = names == HISTORY_COLUMNS[1:]  # up to format 4
        if names != HISTORY_COLUMNS and not is_of_one_network:
            raise ValueError(f"it has the columns {_validate.listing(names)}")
        history = pd.read_csv(path, dtype=_HISTORY_TYPES)
        if is_of_one_network:
            history.insert(0, HISTORY_COLUMNS[0], 1)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{HISTORY} is not a table of {columns} ({error})") from error
    # the loss of a validation may be NaN
    is_valid = history["split"].isin(("training", "validation"))
    is_valid &= (history["epoch"] >= 0) & (history["step"] >= 0) & (history["network"] >= 1)
    if not is_valid.all():
        n_bad, row = int((~is_valid).sum()), history[~is_valid].iloc[0].to_dict()
        raise ValueError(f"{HISTORY} has {n_bad} invalid rows, the first {row}")
    return history


def _assemble(
    config: Config, saved: SavedArrays, history: pd.DataFrame, bases: dict[str, Model]
) -> Model:
    method = METHODS[config.method]
    targets = from_state(config.targets, saved.read("targets"))
    if len(targets.columns) != len(config.genes):
        n_targets = len(targets.columns)
        raise ValueError(f"the targets have {n_targets} genes, {CONFIG} has {len(config.genes)}")
    # networks on pixels need no scaling of embeddings
    inputs = saved.scaling("inputs", needed=method.inputs != "pixels")
    n_features = 0 if inputs is None else len(inputs.mean)
    network = read_network(
        method, config, saved, n_features=n_features, n_outputs=targets.n_outputs
    )
    errors = saved.read("calibration")
    if errors and config.calibration is None:
        raise ValueError(f"{CONFIG} lacks calibration, but its arrays are saved")
    model = Model(
        network=network,
        targets=targets,
        history=history,
        inputs=inputs,
        subtiles=saved.scaling("subtiles", needed=method.contexts[config.context][0]),
        bases=bases,
        calibration=None
        if config.calibration is None
        else Calibration.from_state(config.calibration, errors),
        **{name: getattr(config, name) for name in SHARED},
    )
    _check_shapes(model)
    check_bases(model)
    return model


def _check_shapes(model: Model) -> None:
    """Require arrays that fit the genes and the embedding."""
    n_genes, inputs, calibration = len(model.genes), first_base(model).inputs, model.calibration
    shapes: list[tuple[str, NDArray[Any], tuple[int, ...]]] = []
    if calibration is not None:
        shapes += [("calibration.intervals.edges", calibration.intervals.edges, (n_genes, 2))]
    if inputs is not None:
        # sub-tiles and familiarity are measured in the same embedding as the inputs
        if model.subtiles is not None:
            embed = model.recipe.embed
            n_fields = max(1, len(embed.fields_um)) if embed is not None else 1
            width = (len(inputs.mean) // n_fields,)  # sub-tiles are those of the first field
            shapes += [("subtiles.mean", model.subtiles.mean, width)]
        if calibration is not None:
            mean = calibration.familiarity.mean
            shapes += [("calibration.familiarity.mean", mean, inputs.mean.shape)]
    for name, array, expected in shapes:
        if array.shape != expected:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
