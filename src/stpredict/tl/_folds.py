"""Predictions of rows by models that have not seen their group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _elements, _keys, _sections, _validate
from stpredict._log import tell
from stpredict.models import Model
from stpredict.tl._predict import predict
from stpredict.tl._split import group_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    Bases = Mapping[str, Callable[[SpatialData], Model]]


def folds_of(table: AnnData, groups: str | None) -> dict[str, list[str]]:
    """Sections of each group, which is left out as a whole."""
    labels, kind = group_labels(table, groups)
    region = _sections.region_of(table)
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        raise ValueError(
            f"there is only one {kind}, {names[0]!r}, but stacking predicts each by models that "
            "were fitted on the others: give more sections, or groups= with a column of several "
            f"groups (columns: {_validate.listing(table.obs.columns)})"
        )
    torn = [name for name in dict.fromkeys(region) if len(set(labels[region == name])) > 1]
    if torn:
        raise ValueError(
            f"groups={groups!r} splits {_validate.listing(torn)}, but stacking leaves out whole "
            "sections, so that no spot is predicted from its neighbours: give a column such as "
            "the patient, or leave groups= out"
        )
    return {name: list(dict.fromkeys(region[labels == name])) for name in names}


def out_of_fold(
    sdata: SpatialData, bases: Bases, folds: Mapping[str, list[str]], *, device: str
) -> tuple[NDArray[np.float32], Model]:
    """Predict each group with every base, fitted on all other groups.

    Returns predictions, (bases, n_obs, n_genes), and the first of the fitted models.
    """
    region = _sections.region_of(_sections.table_of(sdata))
    first: Model | None = None
    predicted = np.empty((len(bases), len(region), 0), dtype=np.float32)
    for group, held_out in folds.items():
        rows = np.flatnonzero(np.isin(region, held_out))
        others = [name for name in dict.fromkeys(region) if name not in held_out]
        for number, (name, fit) in enumerate(bases.items()):
            tell(f"stacking: {name} without {group}")
            model = fit_base(name, fit, only(sdata, others))
            if first is None:
                first = model
                predicted = np.empty((*predicted.shape[:2], len(model.genes)), dtype=np.float32)
            check_alike(name, model, next(iter(bases)), first)
            _check_unseen(name, model, held_out)
            test = only(sdata, held_out)
            predict(test, model, device=device)
            predicted[number, rows] = test.tables[_keys.PREDICTED].X
    if first is None:
        raise ValueError("there is nothing to leave out")
    _validate.finite(predicted, what="what the bases predict")
    return predicted, first


def fit_base(name: str, fit: Callable[[SpatialData], Model], sdata: SpatialData) -> Model:
    """Fit a base to sections that it may change."""
    model = fit(sdata)
    if not isinstance(model, Model):
        raise TypeError(
            f"bases[{name!r}] must return a fitted model, but returned {type(model).__name__}: "
            "give a function of the sections such as stp.tl.fit_ridge"
        )
    return model


def check_alike(name: str, model: Model, other: str, first: Model) -> None:
    """Require that two bases predict the same."""
    if model.genes != first.genes:
        differing = sorted(set(model.genes) ^ set(first.genes))
        raise ValueError(
            f"the bases must predict the same genes in the same order: {name!r} predicts "
            f"{len(model.genes)}, {other!r} {len(first.genes)}, "
            + (f"one of them not {_validate.listing(differing)}" if differing else "in other order")
            + ": select them once, before stacking, or give genes= to every base"
        )
    for what, found, wanted in (
        ("units", model.units, first.units),
        ("layer", model.recipe["layer"], first.recipe["layer"]),
    ):
        if found != wanted:
            raise ValueError(
                f"the bases must predict in the same {what}: {name!r} predicts {found!r}, "
                f"{other!r} {wanted!r}: give them the same layer= and kind of loss="
            )


def _check_unseen(name: str, model: Model, held_out: Collection[str]) -> None:
    seen = [section for section in model.training["sections"] if section in held_out]
    if seen:
        raise ValueError(
            f"bases[{name!r}] was to predict {_validate.listing(held_out)} without having seen "
            f"them, but its model was trained on {_validate.listing(seen)}: give a function that "
            "fits the sections it is called with, not a fitted model"
        )


def only(sdata: SpatialData, names: Collection[str]) -> SpatialData:
    """Copy some of the sections, with their rows and shapes; images, which are lazy, are shared."""
    table = _sections.table_of(sdata)
    _, region_key, instance_key = get_table_keys(table)
    kept = table[np.isin(_sections.region_of(table), list(names))].copy()
    del kept.uns[TableModel.ATTRS_KEY]
    kept.obs[region_key] = kept.obs[region_key].astype(str).astype("category")
    images = {_elements.image_name(sdata, name) for name in names}
    images |= {_keys.normalized(image) for image in images}
    return SpatialData.init_from_elements(
        {
            **{name: image for name, image in sdata.images.items() if name in images},
            **{name: sdata.shapes[name].copy() for name in names},
            **{
                name: labels
                for name, labels in sdata.labels.items()
                if name in {_keys.tissue(image) for image in images}
            },
            _keys.TABLE: TableModel.parse(
                kept,
                region=list(dict.fromkeys(kept.obs[region_key])),
                region_key=region_key,
                instance_key=instance_key,
            ),
        },
        attrs=dict(sdata.attrs),
    )
