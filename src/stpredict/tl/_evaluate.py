"""Predicted against measured, beside what a model has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from stpredict import _keys, _validate, metrics
from stpredict._log import tell
from stpredict._sdata import _layers, _provenance, _sections
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM
from stpredict.tl._crossval._score_folds import graph_of, noise_ceiling, tissue_of
from stpredict.tl._crossval._section_scores import score_genes, score_nulls
from stpredict.tl._fitting._task import library_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def evaluate(sdata: SpatialData, *, layer: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Score ``tables["predicted"]`` against what was measured.

    Pearson and Spearman correlation are taken per gene over the spots of each section, then
    averaged over sections; a gene that is constant on either side scores 0 and is counted. Beside
    the model stand its nulls: the mean of the training rows; ridge regression (alpha tuned) on
    the same embedding; shuffled embeddings (every spot is predicted from the inputs of another spot
    of its section); embeddings moved within the section by random turns and shifts, which keep
    their patterns (20 of either); the mean of the *measured* neighbours, which no model is given.
    Above it stands what the noise of the counts leaves to be predicted.

    Rows and genes are matched by name.

    Parameters
    ----------
    sdata
        Sections with counts and ``tables["predicted"]``.
    layer
        Measured layer, by default the one the model was trained on; of models of counts, their
        counts per 10,000.
    seed
        Of the shuffles.

    Returns
    -------
    pandas.DataFrame
        One row per gene, by falling ``pcc``: the model's ``pcc``, ``spearman``, ``rmse``, ``mae``,
        ``explained_variance``, ``variance_ratio``, ``auc``, ``ssim``, ``morans_i_difference``
        (`stpredict.metrics`); ``pcc``, ``spearman`` and ``rmse`` with the suffix
        ``_ridge``, ``_training_mean`` (whose ``pcc`` is 0 by definition; these two are left out
        where published weights do not tell them) and ``_neighbor_mean``;
        ``pcc_shuffled``, ``pcc_spatial_null``; ``pcc_ceiling``, where ``layers["log1p"]`` of counts
        is scored; ``measured_mean``. ``attrs["summary"]`` has their
        means by method, ``attrs["protocol"]`` says in words how the score came about; both are
        printed.

    Raises
    ------
    KeyError
        If there are no predictions, or the layer is missing.
    ValueError
        If the predictions are not of `predict`, predicted and measured tables share no spots or
        no genes, a section has a single spot, or predictions have NaN.

    Examples
    --------
    >>> import stpredict as stp
    >>> scores = stp.tl.evaluate(sdata)  # doctest: +SKIP
    >>> scores.loc["ERBB2", "pcc"]  # doctest: +SKIP
    """
    predicted = _sections.table_of(sdata, _keys.PREDICTED)
    measured = _sections.table_of(sdata)
    how = _provenance.recorded(predicted, "predict")
    if not how or "training_mean" not in predicted.var:
        raise ValueError(
            f"tables[{_keys.PREDICTED!r}] holds no genes that stp.tl.predict wrote: its baselines "
            "are missing"
        )
    given, layer = layer, how.get("layer") if layer is None else layer
    values = _sections.layer_of(measured, layer)
    units = _layers.units_of(measured, layer)
    spots = predicted.obs_names.intersection(measured.obs_names, sort=False)
    genes = predicted.var_names.intersection(measured.var_names, sort=False)
    if not len(spots) or not len(genes):
        raise ValueError(
            f"predicted and measured tables share {len(spots)} spots and {len(genes)} genes: "
            "were spots renamed, or genes indexed by another name?"
            + ("" if len(genes) else _validate.why_absent(predicted.var_names, measured.var_names))
        )
    chosen = predicted[spots, genes]
    picked = values[measured.obs_names.get_indexer(spots)][:, measured.var_names.get_indexer(genes)]
    truth = np.asarray(picked.toarray() if sp.issparse(picked) else picked, dtype=np.float64)
    if given is None and how["units"] == COUNTS_UNITS:
        library = library_of(values)[measured.obs_names.get_indexer(spots)]
        truth, units = truth / library[:, None] * TARGET_SUM, COUNTS_UNITS
    scores = _score(sdata, chosen, truth, layer=layer if units != COUNTS_UNITS else None, seed=seed)
    scores.attrs["summary"] = _summary(scores)
    scores.attrs["protocol"] = _protocol(predicted, chosen, layer=layer, units=units, how=how)
    tell(f"{scores.attrs['protocol']}\n{pd.DataFrame(scores.attrs['summary']).T.round(3)}")
    return scores


def _score(
    sdata: SpatialData,
    predicted: AnnData,
    truth: NDArray[np.float64],
    *,
    layer: str | None,
    seed: int,
) -> pd.DataFrame:
    measured = _sections.table_of(sdata)
    rows = measured.obs_names.get_indexer(predicted.obs_names)
    model = np.asarray(predicted.X, dtype=np.float64)
    ridge = predicted.layers.get(_keys.RIDGE)  # released weights come without one
    mean = np.broadcast_to(predicted.var["training_mean"].to_numpy(dtype=np.float64), truth.shape)
    knows_mean = not np.isnan(mean).any()  # nor do all tell the mean of their training
    genes, graph = predicted.var_names.to_numpy(), graph_of(sdata)
    by_section = []
    for section in _sections.sections(sdata):
        here = np.flatnonzero(np.isin(rows, section.rows))
        if not len(here):
            continue
        if len(here) < 2:
            raise ValueError(f"section {section.name!r} has 1 spot: a correlation needs two")
        true, places = truth[here], rows[here]
        tissue = tissue_of(section, places, graph)
        around = metrics.neighbor_mean(true, tissue.graph)
        ceiling = noise_ceiling(measured, places, genes, layer, seed=seed)
        by_section.append(
            {
                **score_genes(tissue, true, model[here]),
                **({} if ridge is None else _of(true, np.asarray(ridge[here]), "ridge")),
                **score_nulls(tissue, true, model[here], seed=seed),
                **(_of(true, mean[here], "training_mean") if knows_mean else {}),
                **_of(true, around, "neighbor_mean"),
                **({} if ceiling is None else {"pcc_ceiling": ceiling.pcc}),
                "measured_mean": true.mean(axis=0),
            }
        )
    averaged = {
        name: np.mean([scores[name] for scores in by_section], axis=0) for name in by_section[0]
    }
    frame = pd.DataFrame(averaged, index=pd.Index(genes, name="gene"))
    return frame.sort_values("pcc", ascending=False, kind="stable")


def _of(
    true: NDArray[np.float64], values: NDArray[np.floating], name: str
) -> dict[str, NDArray[np.float64]]:
    found = metrics.per_gene(true, values, names=("pcc", "spearman", "rmse"))
    return {f"{metric}_{name}": scores for metric, scores in found.items()}


def _summary(scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    rows = {
        "model": "",
        "ridge": "_ridge",
        "training mean": "_training_mean",
        "neighbor mean": "_neighbor_mean",
        "shuffled": "_shuffled",
        "spatial null": "_spatial_null",
        "noise ceiling": "_ceiling",
    }
    summary = {}
    for method, suffix in rows.items():
        if f"pcc{suffix}" not in scores:
            continue
        pcc = scores[f"pcc{suffix}"]
        summary[method] = {
            "mean PCC": float(pcc.mean()),
            "median PCC": float(pcc.median()),
            "first quartile": float(pcc.quantile(0.25)),
            "mean Spearman": _mean(scores, f"spearman{suffix}"),
            "mean RMSE": _mean(scores, f"rmse{suffix}"),
        }
    return summary


def _mean(scores: pd.DataFrame, column: str) -> float:
    return float(scores[column].mean()) if column in scores else float("nan")


def _protocol(
    predicted: AnnData, chosen: AnnData, *, layer: str | None, units: str, how: dict[str, object]
) -> str:
    sections = list(dict.fromkeys(_sections.region_of(chosen)))
    trained: list[str] = list(how.get("training_sections", []))  # type: ignore[call-overload]
    seen = [section for section in sections if section in trained]
    held_out = (
        f"NOT held out: the model was trained on {_validate.listing(seen)}."
        if seen
        else f"Held out; the model was trained on {_validate.listing(trained)}."
    )
    where = "X" if layer is None else f"layer {layer!r}"
    where += f" as {units}" if units == COUNTS_UNITS else ""
    left = predicted.n_vars - chosen.n_vars
    return (
        f"{how.get('method')}: {chosen.n_vars} genes, {chosen.n_obs} spots of "
        f"{_validate.listing(sections)}. {held_out} Pearson per gene within each section, mean "
        f"over sections, constant genes count as 0; measured {where}."
        + (f" {left} predicted genes were not measured." if left else "")
        + (
            f" Measured in {units}, predicted in {how['units']}: RMSE compares the two as they are."
            if units != how["units"]
            else ""
        )
    )
