"""Training and test sections of a fold, with fitted preprocessing repeated on training rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict import _keys
from stpredict._sdata._steps import EmbedStep
from stpredict.pp._steps._replay import load_encoder, replay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Fold, Folds


def fold_data(spots: SpotTable, fold: Fold, *, device: str) -> tuple[SpotTable, SpotTable]:
    """Split a table into training and test sections.

    Steps that learn from rows were run on all sections. They are repeated, as recorded, on the
    training sections: selected genes, ranks among selected genes, weights of groups, and a
    reference stain that test sections contributed to, with the embeddings of its images. The
    neighbourhood graph of each part links its own spots only.
    """
    training = spots.subset(fold.training)
    test = spots.subset(fold.rows if fold.visible is None else fold.visible)
    _refit_stain(training, test, device=device)
    _refit_genes(training, test)
    _refit_weights(training)
    return training, test


def check_repeatable(spots: SpotTable, folds: Folds) -> None:
    """Require that every step that has to be repeated in a fold can be."""
    section = spots.section_of_row
    if not any(
        _reference_changes(spots, section[fold.rows], section[fold.training]) for fold in folds
    ):
        return
    for slot, step in _stained_embeddings(spots).items():
        try:
            load_encoder(step)
        except (KeyError, ValueError) as error:
            what = "a custom encoder" if isinstance(error, KeyError) else "custom weights"
            raise ValueError(
                f"obsm[{slot!r}] has to be computed again in each fold, because its images were "
                f"normalised to the stain of held-out sections, but it was made by {what}: give "
                "stp.pp.normalize_stain a reference= from elsewhere"
            ) from error


def _reference_changes(spots: SpotTable, test: Iterable[str], training: Iterable[str]) -> bool:
    """Whether held-out sections contributed to the reference stain."""
    step = spots.steps.normalize_stain
    sections = set() if step is None else set(step.reference_sections or ())
    return bool(sections & set(test) - set(training))


def _stained_embeddings(spots: SpotTable) -> dict[str, EmbedStep]:
    """Embeddings of normalised images."""
    obsm, steps = spots.table.obsm, spots.steps.embed
    return {slot: step for slot, step in steps.items() if step.stain is not None and slot in obsm}


def _refit_stain(training: SpotTable, test: SpotTable, *, device: str) -> None:
    """Normalise to the stain of training sections only, and embed again."""
    names = training.section_names
    step = training.steps.normalize_stain
    if step is None or not _reference_changes(training, test.section_names, names):
        return
    # without any reference section left, all training sections are the reference
    remaining = [name for name in step.reference_sections or () if name in names] or names
    replay(training, replace(step, reference_sections=tuple(remaining)))
    fitted = training.steps.normalize_stain or step
    replay(test, replace(step, reference=fitted.reference, reference_sections=None))
    # embeddings of the old images are outdated in both parts
    for slot, embed_step in _stained_embeddings(training).items():
        encoder = load_encoder(embed_step)
        for part in (training, test):
            refitted = replace(embed_step, stain=fitted.reference)
            replay(part, refitted, slot=slot, encoder=encoder, device=device)


def _refit_genes(training: SpotTable, test: SpotTable) -> None:
    """Select genes on training rows, and repeat ranks that were among the selected genes."""
    if _keys.SELECTED not in training.table.var:
        return
    previous = set(training.selected_genes)
    step = training.steps.select_genes
    if step is not None and step.n_top_genes is not None:
        replay(training, step)
    selected = tuple(training.selected_genes)
    for rank_step in training.steps.rank_expression.values():
        if set(rank_step.genes or ()) == previous:
            for part in (training, test):
                replay(part, replace(rank_step, genes=selected))


def _refit_weights(training: SpotTable) -> None:
    """Balance the groups of the training rows; expression clusters never span sections."""
    obs, step = training.table.obs, training.steps.balance
    if step is None or not step.by or _keys.SAMPLING_WEIGHT not in obs:
        return
    # the training rows may belong to a single group, which needs no weights
    if obs.groupby(list(step.by), observed=True).ngroups == 1:
        obs[_keys.SAMPLING_WEIGHT] = 1.0
    else:
        replay(training, step)
