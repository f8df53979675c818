"""Prediction of a slide in blocks of neighbouring spots, so that few embeddings are in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _runtime
from stpredict._log import shared_bar
from stpredict._sdata._provenance import record_step
from stpredict._sdata._steps import NormalizeStainStep
from stpredict.models._stack import StackInputs, is_ranked
from stpredict.pp._embed import embed_tiles
from stpredict.pp._steps._replay import replay
from stpredict.tl._fitting._inputs import prediction_inputs
from stpredict.tl._prediction._sections import stored_sections
from stpredict.tl._prediction._table import Predictions, familiarity_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.encoders import Encoder
    from stpredict.models import Model
    from stpredict.pp._steps._inputs import InputPlan
    from stpredict.tl._prediction._genes import GeneSelection
    from stpredict.tl._prediction._sections import StoredSections

#: Spots predicted together, as far as their embeddings and predictions fit into memory. With one
#: ring of neighbours, blocks of 4,096 spots embed 5 % of the tiles twice.
BLOCK_SPOTS, BLOCK_BYTES = 16_384, 512 * 2**20
#: Copies of embeddings and of predictions that exist at the same time.
_COPIES = 3


@dataclass(frozen=True, eq=False)
class SlideInputs:
    """A slide with spots, graph and stain, and the encoders that its blocks are embedded with."""

    spots: SpotTable
    plan: InputPlan
    encoders: dict[str, Encoder]  # by slot, without embeddings that are registered
    stained: dict[str, SpotTable]  # the slide with the stain of each slot

    @classmethod
    def prepare(
        cls, spots: SpotTable, plan: InputPlan, encoders: dict[str, Encoder]
    ) -> SlideInputs:
        """Build the graph, and normalise the stain; both change ``spots``."""
        plan.normalize_stain(spots)
        plan.link(spots)
        stained = {}
        stains = {step.stain for step in plan.embeddings.values()}
        for slot, step in plan.embeddings.items():
            if step.stain is not None:
                replay(spots, NormalizeStainStep(reference=step.stain))
            # bases of a stack may differ in the reference
            stained[slot] = spots.copy() if len(stains) > 1 else spots
        return cls(spots, plan, encoders, stained)

    def with_neighbors(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Some rows and their neighbours, ascending."""
        if all(base.recipe.neighbors is None for base in self.plan.bases):
            return np.sort(rows)
        return np.unique(np.concatenate([rows, self.spots.graph[rows].indices]))

    @property
    def standardized(self) -> set[str]:
        """Slots whose features are standardised within each section."""
        recipes = [base.recipe for base in self.plan.bases]
        return {str(each.embedding) for each in recipes if each.standardize == "section"}

    @property
    def stored_slots(self) -> list[str]:
        """Slots that are embedded for the whole slide before the first prediction."""
        return [slot for slot in self.encoders if slot in self.standardized]

    def store(
        self,
        stored: StoredSections,
        blocks: list[NDArray[np.intp]],
        *,
        batch_size: int,
        device: str,
    ) -> None:
        """Embed all spots, as far as the statistics of their sections are needed."""
        slots = self.stored_slots
        for rows in blocks if slots else []:
            block = self.embed(rows, slots, batch_size=batch_size, device=device)
            for slot in slots:
                stored.add(rows, block, slot)
        stored.finish(self.spots, self.standardized - set(slots))

    def block(
        self, rows: NDArray[np.intp], stored: StoredSections, *, batch_size: int, device: str
    ) -> SpotTable:
        """Copy some rows, ascending, with their embeddings, which may have been stored."""
        slots = [slot for slot in self.encoders if slot not in self.standardized]
        block = self.embed(rows, slots, batch_size=batch_size, device=device)
        for slot in self.stored_slots:
            stored.fill(block, rows, slot)
        return stored.with_scalers(block)

    def embed(
        self, rows: NDArray[np.intp], slots: list[str], *, batch_size: int, device: str
    ) -> SpotTable:
        """Copy some rows, ascending, and embed them."""
        block = self.spots.subset(rows)
        torch_device = _runtime.resolve_device(device)
        for slot in slots:
            encoder, whole = self.encoders[slot], self.stained[slot]
            source = block if whole is self.spots else whole.subset(rows)
            step = self.plan.embeddings[slot]
            embed_tiles(
                source, step, encoder, slot=slot, batch_size=batch_size, device=torch_device
            )
            if source is not block:
                for key in {slot, _keys.subtiles(slot)} & set(source.table.obsm):
                    block.table.obsm[key] = source.table.obsm[key]
                record_step(block.table, source.steps.embed[slot], slot=slot)
        return block


def predict_blocks(
    inputs: SlideInputs,
    selection: GeneSelection,
    *,
    groups: NDArray[np.intp] | None = None,
    batch_size: int,
    device: str,
) -> Iterator[Predictions]:
    """Embed all spots of a slide and predict the selected genes, block by block.

    Rows of the same group, of which there is one number per row, are predicted together.
    """
    model = selection.predictor
    most = _spots_at_once(inputs, model)
    blocks = [
        block
        for section in inputs.spots.sections
        for block in split_blocks(section.centers_um, section.rows, most=most)
    ]
    if groups is not None:
        blocks = keep_together(blocks, groups)
    parts = [inputs.with_neighbors(rows) for rows in blocks]
    options: dict[str, Any] = {"batch_size": batch_size, "device": device}
    n_obs = inputs.spots.table.n_obs
    n_stored = len(inputs.stored_slots)
    n_tiles = sum(map(len, parts)) * (_n_passes(inputs, model) - n_stored) + n_obs * n_stored
    name = ", ".join(inputs.spots.section_names)
    with stored_sections(n_obs) as stored, shared_bar(n_tiles, f"predict {name}", unit="tile"):
        inputs.store(stored, blocks, **options)
        for rows, part in zip(blocks, parts, strict=True):
            block = inputs.block(part, stored, **options)
            inputs.plan.check_inputs(block)
            values, spread = _predict(block, selection, device)
            familiarity = familiarity_of(block, model)
            inside = np.isin(part, rows)
            yield Predictions(
                rows=part[inside],
                values=values[inside],
                spread=None if spread is None else spread[inside],
                familiarity=None if familiarity is None else familiarity[inside],
            )


def _predict(
    block: SpotTable, selection: GeneSelection, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Predictions of a block; of a ranked stack, those of its bases side by side."""
    model, columns = selection.predictor, selection.columns
    inputs = prediction_inputs(block, model)
    by_base = None
    if isinstance(inputs, StackInputs) and is_ranked(model):
        by_base = inputs.predict_bases(device)
        inputs = replace(inputs, predicted=by_base)  # for the spread
    values, spread = model.predict_inputs(inputs, device=device)
    if by_base is not None:
        values = np.concatenate(by_base[..., columns], axis=1)
    else:
        values = values[:, columns]
    return values, None if spread is None else spread[:, columns]


def collect(
    blocks: Iterator[Predictions], selection: GeneSelection, sections: NDArray[np.str_]
) -> Predictions:
    """Predictions of all spots, in memory."""
    parts = list(blocks)
    order = np.argsort(np.concatenate([part.rows for part in parts]))

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)[order]

    whole = Predictions(*map(joined, ("rows", "values", "spread", "familiarity")))
    if is_ranked(selection.predictor):
        genes = np.arange(len(selection.described.genes))
        values = selection.rank(np.asarray(whole.values), sections, genes)
        return replace(whole, values=values)
    return whole


def _spots_at_once(inputs: SlideInputs, model: Model) -> int:
    """Largest number of spots of a block, whatever the sizes of embeddings and of the model."""
    numbers = len(model.genes) * (1 + len(model.bases))
    for slot, encoder in inputs.encoders.items():
        step = inputs.plan.embeddings[slot]
        n_subtiles = (step.n_subtiles or 1) ** 2  # an array of sub-tiles exists for 1, too
        numbers += encoder.dimension * (len(step.fields_um) + n_subtiles)
    return int(np.clip(BLOCK_BYTES // (4 * _COPIES * numbers), 1, BLOCK_SPOTS))


def _n_passes(inputs: SlideInputs, model: Model) -> int:
    """How often each tile is read."""
    pixels = [base for base in inputs.plan.bases if base.uses_pixels]
    describes = model.calibration is not None and inputs.plan.bases[0].uses_pixels
    return len(inputs.encoders) + len(pixels) + int(describes)


def split_blocks(
    points: NDArray[np.floating], rows: NDArray[np.intp], *, most: int
) -> list[NDArray[np.intp]]:
    """Split rows at ``points`` (n, 2) into compact blocks of about equal size, at most ``most``."""
    n_blocks = -(-len(rows) // most)
    if n_blocks <= 1:
        return [np.sort(rows)]
    # across the longer side, in proportion to the number of blocks on both sides
    order = np.argsort(points[:, np.argmax(np.ptp(points, axis=0))], kind="stable")
    cut = len(rows) * (n_blocks // 2) // n_blocks
    halves = order[:cut], order[cut:]
    return [block for half in halves for block in split_blocks(points[half], rows[half], most=most)]


def keep_together(
    blocks: list[NDArray[np.intp]], groups: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    """Move rows to the block with the first row of their group."""
    block = np.empty(len(groups), dtype=np.intp)
    for number, rows in enumerate(blocks):
        block[rows] = number
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    block = block[first][group]
    return [np.flatnonzero(block == number) for number in np.unique(block)]
