"""Predict a whole slide."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dask

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._sdata._pixels import check_tiles
from stpredict._sdata._provenance import record
from stpredict._sdata._slots import check_new_table
from stpredict.models._stack import check_blockwise
from stpredict.pp._steps._inputs import InputPlan
from stpredict.tl._prediction._blocks import SlideInputs, collect, predict_blocks
from stpredict.tl._prediction._genes import GeneSelection
from stpredict.tl._prediction._slide import (
    open_slide,
    pitch_of,
    place_spots,
    section_name,
    write_back,
)
from stpredict.tl._prediction._store import open_store
from stpredict.tl._prediction._table import predicted_table
from stpredict.tl._superresolution._fine import FineSections
from stpredict.tl._superresolution._slide import check_slide_model, superresolve_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
def predict_slide(
    slide: str | Path | SpatialData,
    model: Model,
    *,
    pitch_um: float | None = None,
    resolution_um: float | None = None,
    genes: Sequence[str] | None = None,
    out: str | Path | None = None,
    mpp: float | None = None,
    image: str | None = None,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None = None,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    table_name: str = "table",
    key_added: str = "predicted",
) -> SpatialData:
    """Predict a whole slide: tissue, stain, spots, embeddings and predictions in one call.

    Spots are placed on the tissue with the pitch, diameter and layout of the training data, the
    stain is normalised to the model's reference, and the spots are embedded and predicted in blocks
    of neighbouring spots. Neighbours across the borders of blocks are taken into account: the
    result equals that of :func:`stpredict.pp.grid`, :func:`stpredict.pp.prepare` and
    :func:`stpredict.tl.predict`, but embeddings of only one block are in memory.

    Parameters
    ----------
    slide
        File, which :func:`stpredict.io.read_slide` reads, or an object with an image of known µm
        per pixel, also a ``WSIData``. Spots that the object has (``tables[table_name]``) are
        predicted.
    model
        Fitted model.
    pitch_um
        Distance between neighbouring spots in µm, by default that of the training data.
    resolution_um
        Distance in µm of positions between the spots that are predicted, too, as by
        :func:`stpredict.tl.superresolve`; by default none.
    genes
        Genes to predict, by default all of the model.
    out
        Folder for ``<name>.zarr`` and ``<name>.h5ad``, which are written while the slide is
        predicted, so that memory does not depend on the number of spots. They appear when they are
        complete.
    mpp
        µm per pixel of a file that does not report them.
    image
        Name of the image, if the object has several.
    encoder, weights
        Encoder, if the model was trained with a module or function of your own; local file with its
        weights, instead of the hub.
    batch_size, device
        Tiles at a time, and where to embed and predict them; ``"auto"``: cuda, then mps, then cpu.
    table_name, key_added
        Names of the table of the spots, and of the table with the predictions.

    Returns
    -------
    SpatialData
        The slide, with everything that the functions above write except the embeddings: the object
        itself, or for a file a new one. ``tables[key_added]`` is that of
        :func:`stpredict.tl.predict`, and ``uns["stpredict"]["predict_slide"]`` records the
        ``slide``, its µm per pixel ``mpp``, the ``pitch_um`` and the ``method``. If a step fails,
        nothing is written.

        With ``resolution_um``, also ``shapes["<section>_superresolved"]`` and
        ``tables["superresolved"]``, which are those of :func:`stpredict.tl.superresolve`, matched
        to the predictions of the spots.

        With ``out``, the object is not changed, and the result is opened from ``<name>.zarr``:
        spots, tissue, tables whose matrices stay on disk (dask arrays) and an image of at most
        1,500 pixels for figures. ``<name>.h5ad`` is the export of the predictions of the spots by
        :func:`stpredict.io.to_anndata`.

    Warns
    -----
    UserWarning
        If the tiles of the slide look unlike those that a calibrated model was trained on.

    Raises
    ------
    FileExistsError, FileNotFoundError, NotADirectoryError
        If the result exists, the slide does not, or ``out`` is a file.
    KeyError
        If the model was trained with a module or function of your own, and ``encoder`` is missing.
    OSError
        If ``out`` cannot be written; what was written is removed.
    RuntimeError
        If the hub does not provide the weights of the encoder.
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If the slide has no tissue, several sections, several images of which none is named, unknown
        µm per pixel or an image smaller than a tile; if ``pitch_um`` does not fit the model's
        neighbours or the slide has spots already; if :func:`stpredict.tl.superresolve` refuses
        ``resolution_um``, or the model averages ranks over the slide; if the weights are not the
        model's, or an option is out of range.

    Examples
    --------
    >>> import stpredict as stp
    >>> training = stp.datasets.phantom()
    >>> stp.pp.normalize(training)
    >>> stp.pp.select_genes(training, n_top_genes=5)
    >>> stp.pp.embed(training)
    >>> model = stp.tl.fit_ridge(training, context="spot")
    >>> slide = stp.datasets.phantom(seed=1).subset(["S1_image"])  # no spots, no table
    >>> slide = stp.tl.predict_slide(slide, model)
    >>> slide.tables["predicted"].n_vars
    5
    """
    _validate.whole_number("batch_size", batch_size)
    _runtime.resolve_device(device)  # raises if there is no such device
    if pitch_um is not None:
        _validate.positive("pitch_um", pitch_um, unit="µm")
    if resolution_um is not None:
        check_slide_model(model, resolution_um)
        if key_added == _keys.SUPERRESOLVED:
            raise ValueError(
                f"key_added={key_added!r} is the name of the table of fine positions: give another"
            )
    check_blockwise(model)
    selection = GeneSelection.of(model, genes)
    plan = InputPlan.of(selection.predictor, encoder=encoder, weights=weights)
    plan.check_complete()
    opened = open_slide(slide, mpp=mpp)
    name = section_name(opened, image, table_name)
    # a client of dask gets whole slides as tasks, not the chunks of one
    with (
        dask.config.set(scheduler="threads"),
        nullcontext() if out is None else open_store(Path(out), name) as store,
    ):
        encoders = {
            slot: plan.load(slot) for slot, step in plan.embeddings.items() if step.is_complete
        }
        spots = place_spots(opened, model, pitch_um=pitch_um, image=image, table_name=table_name)
        check_new_table(opened, key_added)
        plan.check_registered(spots)
        check_tiles(spots.sections, plan.tile_sides_um)
        fine = None
        if resolution_um is not None:
            fine = FineSections.place(spots, resolution_um, _keys.SUPERRESOLVED)
        inputs = SlideInputs.prepare(spots, plan, encoders)
        blocks = predict_blocks(inputs, selection, batch_size=batch_size, device=device)
        gather = collect if store is None else store.collect
        predictions = gather(blocks, selection, spots.section_of_row)
        predicted = predicted_table(spots, selection.described, predictions)
        section = spots.sections[0]
        record(
            predicted,
            "predict_slide",
            slide=Path(slide).name if isinstance(slide, str | Path) else section.image,
            mpp=section.mpp,
            pitch_um=pitch_of(spots),
            method=model.method,
        )
        spots.add_table(key_added, predicted)
        if fine is not None:
            if store is not None:
                gather = partial(store.collect, prefix=f"{fine.key}_")
            superresolve_slide(
                fine, plan, encoders, selection, gather, key_added, batch_size, device
            )
        if store is not None:
            tables = [key_added] if fine is None else [key_added, fine.key]
            return store.finish(spots, *tables)
    if isinstance(slide, str | Path):
        return opened
    write_back(opened, slide)
    return slide
