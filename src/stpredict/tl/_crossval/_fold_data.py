"""Training and test sections of a fold, with all that learns from data learnt anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stpredict import _keys, encoders
from stpredict._sdata import _provenance, _sections
from stpredict.pp._balance import balance
from stpredict.pp._embed import embed_with
from stpredict.pp._rank_expression import rank_expression
from stpredict.pp._select_genes import select_genes
from stpredict.pp._stain._normalize_stain import normalize_stain
from stpredict.tl._crossval._folds import only

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.tl._crossval._folds import Folds

#: Encoded at a time.
_BATCH = 64


def fold_data(
    sdata: SpatialData, held_out: NDArray[np.intp], *, device: str
) -> tuple[SpatialData, SpatialData]:
    """Split into training and test sections.

    Steps that learn from the rows they are run on were run on all sections. They are run again, as
    they were recorded, on the training sections: the choice of genes, ranks among chosen genes,
    weights of groups, and the stain that sections of the test were part of.
    """
    rows = np.arange(_sections.table_of(sdata).n_obs)
    train, test = only(sdata, np.delete(rows, held_out)), only(sdata, held_out)
    _stain(train, test, device=device)
    _genes(train, test)
    _weights(train)
    return train, test


def check_redoable(table: AnnData, folds: Folds) -> None:
    """Require that what has to be run again can be."""
    region = _sections.region_of(table)
    moving = any(
        _moves(table, set(region[rows]), set(np.delete(region, rows))) for _, rows in folds
    )
    for slot, recipe in _stained(table).items() if moving else ():
        try:
            loaded = encoders.load(recipe["encoder"])
        except KeyError as error:
            raise ValueError(
                f"obsm[{slot!r}] was made by an encoder of your own on images whose stain was "
                "normalised to sections that are left out in turn, so that it has to be made again "
                "without them: give stp.pp.normalize_stain a reference= from elsewhere, or embed "
                "with an encoder that stp.encoders.load knows by name"
            ) from error
        if loaded.weights_hash != recipe["weights_hash"]:
            raise ValueError(
                f"obsm[{slot!r}] was made by {recipe['encoder']!r} with weights of your own on "
                "images whose stain was normalised to sections that are left out in turn, so that "
                "it has to be made again without them: give stp.pp.normalize_stain a reference= "
                "from elsewhere"
            )


def genes_given(table: AnnData) -> bool:
    """Whether the selected genes were given, not chosen by their values."""
    return "n_top_genes" not in _provenance.recorded(table, "select_genes")


def _moves(table: AnnData, test: set[str], train: set[str]) -> bool:
    """Whether the stain all were normalised to is in part that of sections left out."""
    known = _provenance.recorded(table, "normalize_stain").get("reference_sections") or ()
    return bool(test & set(known) - train)


def _stained(table: AnnData) -> dict[str, dict[str, Any]]:
    """Embeddings of normalised images, and how they were made."""
    known = _provenance.recorded(table, "embed")
    return {
        slot: how
        for slot, how in known.items()
        if isinstance(how, dict) and "stain" in how and slot in table.obsm
    }


def _stain(train: SpatialData, test: SpatialData, *, device: str) -> None:
    """Normalise to the stain of training sections only, and embed again."""
    table = _sections.table_of(train)
    names = _sections.section_names(table)
    if not _moves(table, set(_sections.section_names(_sections.table_of(test))), set(names)):
        return
    known = _provenance.recorded(table, "normalize_stain")
    degenerate: Literal["skip", "error"] = "skip" if known.get("left_alone") else "error"
    kept = [name for name in known["reference_sections"] if name in names]
    normalize_stain(train, method=known["method"], reference=kept or None, degenerate=degenerate)
    stain = _provenance.recorded(table, "normalize_stain")["reference"]
    normalize_stain(test, method=known["method"], reference=stain, degenerate=degenerate)
    for slot, how in _stained(table).items():
        encoder = encoders.load(how["encoder"])
        for sections in (train, test):
            embed_with(
                sections,
                encoder,
                source=how["encoder"],
                tile_um=how["tile_um"],
                n_subtiles=how["n_subtiles"],
                batch_size=_BATCH,
                device=device,
                key_added=slot,
            )


def _genes(train: SpatialData, test: SpatialData) -> None:
    """Select on training rows, and rank among what is selected where ranks were among that."""
    table = _sections.table_of(train)
    if _keys.SELECTED not in table.var:
        return
    before = set(table.var_names[table.var[_keys.SELECTED]])
    if not genes_given(table):
        how = _provenance.recorded(table, "select_genes")
        select_genes(train, n_top_genes=how["n_top_genes"], flavor=how["flavor"])
    after = table.var_names[table.var[_keys.SELECTED]].tolist()
    for layer, how in _provenance.recorded(table, "rank_expression").items():
        if isinstance(how, dict) and set(how.get("genes") or ()) == before:
            for sections in (train, test):
                rank_expression(
                    sections,
                    layer=how.get("layer"),
                    genes=after,
                    method=how["method"],
                    normalize=how["normalize"],
                    key_added=layer,
                )


def _weights(train: SpatialData) -> None:
    """Balance groups as they are in training; clusters are those of single sections anyway."""
    table = _sections.table_of(train)
    columns = _provenance.recorded(table, "balance").get("by")
    if columns and _keys.SAMPLING_WEIGHT in table.obs:
        single = table.obs.groupby(list(columns), observed=True).ngroups == 1
        if single:
            table.obs[_keys.SAMPLING_WEIGHT] = 1.0
        else:
            balance(train, by=list(columns))
