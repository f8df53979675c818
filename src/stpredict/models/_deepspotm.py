"""DeepSpot-M, built and read by the package of its authors."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import TilesStep
from stpredict.encoders._weights import HUB, require_hub
from stpredict.models._methods import DEEPSPOTM
from stpredict.models._model import Model
from stpredict.models._records import Hyperparameters, TrainingRecord
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.nn._tiles import Normalize
from stpredict.targets import Standard
from stpredict.targets._genes import Genes

if TYPE_CHECKING:
    from collections.abc import Sequence

LICENCE = (
    "DeepSpot-M is for noncommercial use: its code has the licence PolyForm Noncommercial 1.0.0, "
    "its weights CC BY-NC-SA 4.0. Cite Nonchev et al., medRxiv 2026, 2026.06.19.26356060"
)
_INSTALL = "pip install deepspotm"
_CONFIG, _WEIGHTS, _GENES = "config.json", "model.safetensors", "tokens.csv"

#: Tiles that the network reads: 224 px at 20x, 0.5 µm per pixel.
_TILE_UM, _TILE_PX = 112.0, 224

#: Tiles times genes that are computed at a time: 0.5 GB in the widest layer of the published size.
_MOST_QUERIES = 1 << 17


class QueriedGenes(nn.Module):
    """DeepSpot-M's network, from tiles to some of its genes."""

    gene_index: Tensor

    def __init__(self, network: nn.Module, gene_index: Tensor, normalisation: Normalize) -> None:
        super().__init__()
        self.network, self.normalize = network, normalisation
        self.register_buffer("gene_index", gene_index)

    def forward(self, tiles: Tensor) -> Tensor:
        """Predict genes of tiles (n, 3, 224, 224), uint8 or float in [0, 1]."""
        if tiles.shape[-2:] != (_TILE_PX, _TILE_PX):
            raise ValueError(f"tiles are {tuple(tiles.shape[-2:])} px, DeepSpot-M reads {_TILE_PX}")
        n_tiles = max(1, _MOST_QUERIES // len(self.gene_index))
        parts = self.normalize(tiles).split(n_tiles)
        return torch.cat([self.network(part, gene_indices=self.gene_index)[0] for part in parts])

    def select_outputs(self, index: Sequence[int]) -> QueriedGenes:
        """The same network for some of the genes, by index; weights are shared."""
        return QueriedGenes(self.network, self.gene_index[list(index)], self.normalize)


@checked
def from_deepspotm(
    weights: str | Path = "ratschlab/DeepSpotM", *, source: str | None = None
) -> Model:
    """Open weights of DeepSpot-M, which predicts genes that are queried by name.

    The package ``deepspotm`` of its authors builds and reads the network (``pip install
    deepspotm``). Its code and weights are licensed for noncommercial use only, which is logged.
    Weights are read from safetensors; checkpoints, which would be unpickled, are refused.

    Run :func:`stpredict.tl.predict` with ``genes=``: time and memory grow with the number of genes,
    of which the published weights have about 19,000. The network reads tiles of 112 µm from the
    images, 224 px at 20x.

    Parameters
    ----------
    weights
        Folder with ``config.json``, ``model.safetensors`` and ``tokens.csv``, or a repository on
        the Hugging Face hub, ``"<owner>/<name>"``. The published repository is gated.
    source
        Gene embedding that queries are made from, such as ``"scgpt"``; required if the weights have
        several.

    Returns
    -------
    Model
        A model on pixels. Its predictions have the published scale, log1p of counts per million
        according to its readme, and may be negative. It cannot be saved or trained further.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    FileNotFoundError, ConnectionError
        If a file does not exist, or the hub does not provide it.
    ValueError
        If ``weights`` is a checkpoint, the package cannot read the folder, weights are NaN or
        infinite, or ``source`` is missing or unknown.

    References
    ----------
    Nonchev et al., DeepSpot-M: a multimodal foundation model for transcriptome-wide virtual spatial
    transcriptomics from histology, medRxiv 2026.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.from_deepspotm(source="scgpt")  # doctest: +SKIP
    >>> stp.tl.predict(sdata, model, genes=["EPCAM", "CD3D"])  # doctest: +SKIP
    """
    folder = _local_folder(weights)
    package = _require_package()
    folder = _from_hub(str(weights)) if folder is None else folder
    source = _source(folder, source)
    network, processor = _read(package, folder, source)
    genes = tuple(map(str, network.gene_names))
    _validate.unique_names(genes, what=f"genes of {folder / _GENES}")
    info(LICENCE)
    n_genes = len(genes)
    queried = QueriedGenes(network, torch.arange(n_genes), _normalisation(processor))
    unscaled = Standard(np.zeros(n_genes, np.float32), np.ones(n_genes, np.float32))
    return Model(
        method=DEEPSPOTM.name,
        network=queried.eval().requires_grad_(requires_grad=False),
        genes=genes,
        context="spot",
        hyperparameters=Hyperparameters(published={"source": source, "licence": LICENCE}),
        recipe=Recipe(layer="log1p", tiles=TilesStep(tile_um=_TILE_UM, tile_px=_TILE_PX)),
        training=TrainingRecord.unreported(
            versions={"torch": torch.__version__, "deepspotm": version("deepspotm")},
            knows_mean=False,
        ),
        units="log1p of counts per million, as published",
        targets=Genes(
            columns=np.arange(n_genes),
            n_fit_genes=n_genes,
            mean=unscaled.mean,
            constant=np.zeros(n_genes, dtype=bool),
            standard=unscaled,
            scaling="standard",
        ),
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),
    )


def _local_folder(weights: str | Path) -> Path | None:
    """Folder with all files of a model; None for a repository on the hub."""
    path = Path(weights)
    if path.is_dir():
        absent = [name for name in (_CONFIG, _WEIGHTS, _GENES) if not (path / name).is_file()]
        if absent:
            raise FileNotFoundError(f"the folder {path} lacks {', '.join(absent)} of DeepSpot-M")
        return path
    if path.exists():
        raise ValueError(
            f"weights={str(path)!r} is not a folder with {_CONFIG}, {_WEIGHTS} and {_GENES}. "
            "Checkpoints of deepspotm are refused, as unpickling them may run any code"
        )
    if not isinstance(weights, str) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", weights):
        raise FileNotFoundError(f"weights= is neither a folder nor '<owner>/<name>': {path}")
    return None


def _require_package() -> Any:
    try:
        import deepspotm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"DeepSpot-M is built by its own package, and {error.name} is not installed: "
            f"{_INSTALL} (noncommercial licence)"
        ) from None
    return deepspotm


def _from_hub(repository: str) -> Path:
    """Download the files of a repository, or find them in the hub's cache."""
    import huggingface_hub

    try:
        require_hub(repository, _WEIGHTS)
        files = [huggingface_hub.hf_hub_download(repository, _WEIGHTS)]
        files += [huggingface_hub.hf_hub_download(repository, name) for name in (_CONFIG, _GENES)]
    except Exception as error:  # noqa: BLE001 the hub client raises the types of several libraries
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise ConnectionError(
            f"the hub did not provide {repository} ({type(error).__name__}: {reason:.200}). Accept "
            f"its terms at {HUB}{repository} and run 'hf auth login', or pass a folder"
        ) from None
    return Path(files[0]).parent


def _source(folder: Path, source: str | None) -> str | None:
    """Gene embedding to use, compared with those that the configuration lists."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        listed = config["init_gene_embeddings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / _CONFIG} is not a configuration of DeepSpot-M") from error
    sources = [str(name) for name in listed] if isinstance(listed, list) else []
    if source is None and len(sources) > 1:
        raise ValueError(f"the weights have several gene embeddings: give source=, {sources}")
    if source is not None:
        _validate.one_of("source", source, sources)
    return source or (sources[0] if sources else None)


def _read(package: Any, folder: Path, source: str | None) -> tuple[Any, Any]:
    """Network and transform of tiles, as the package reads them."""
    try:
        # building draws initial weights
        with torch.random.fork_rng(devices=[]):
            network, processor = package.DeepSpotM.from_pretrained(
                str(folder), source=source, device=torch.device("cpu")
            )
    except Exception as error:  # noqa: BLE001 of torch, safetensors, peft, pandas and the package
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        problem = f"deepspotm cannot read {folder} ({type(error).__name__}: {reason:.300})"
        if not (installed := version("transformers")).startswith("4."):
            problem += f". deepspotm 1.0.0 needs transformers 4, installed is {installed}"
        raise ValueError(problem) from None
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} in {folder / _WEIGHTS} has values that are NaN or infinite")
    return network, processor


def _normalisation(processor: Any) -> Normalize:
    """The last step of the package's transform; tiles are cropped by this package."""
    step = processor.transforms[-1]
    return Normalize(step.mean, step.std, least_px=_TILE_PX, name="DeepSpot-M")
