"""Super-resolution of a slide in blocks, each of whole spots."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stpredict import _validate
from stpredict._log import info
from stpredict.models._stack import is_ranked
from stpredict.tl._prediction._blocks import SlideInputs, predict_blocks
from stpredict.tl._prediction._table import predicted_table
from stpredict.tl._superresolution._inputs import check_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stpredict.encoders import Encoder
    from stpredict.models import Model
    from stpredict.pp._steps._inputs import InputPlan
    from stpredict.tl._prediction._genes import GeneSelection
    from stpredict.tl._prediction._table import Predictions
    from stpredict.tl._superresolution._fine import FineSections


def check_slide_model(model: Model, resolution_um: float) -> None:
    """Require a model that can predict fine positions block by block."""
    _validate.positive("resolution_um", resolution_um, unit="µm")
    if is_ranked(model):
        raise ValueError(
            "the stack averages ranks over the whole slide, but resolution_um= predicts blocks: "
            "use a stack with another meta="
        )
    check_model(model, resolution_um)


def superresolve_slide(
    fine: FineSections,
    plan: InputPlan,
    encoders: dict[str, Encoder],
    selection: GeneSelection,
    gather: Callable[..., Predictions],
    match: str,
    batch_size: int,
    device: str,
) -> None:
    """Predict the positions of one section, match them to its predicted spots, and write them."""
    (section,) = fine.spots.sections
    spot_values: Any = fine.spots.sdata.tables[match].X
    opened = fine.open()
    blocks = predict_blocks(
        SlideInputs.prepare(opened, plan, encoders),
        selection,
        groups=fine.positions[section.name].spot,
        batch_size=batch_size,
        device=device,
    )
    nonnegative = selection.described.nonnegative

    def matched() -> Iterator[Predictions]:
        for block in blocks:
            values: Any = block.values
            values = fine.match(section, block.rows, values, spot_values, nonnegative=nonnegative)
            yield replace(block, values=values)

    predictions = gather(matched(), selection, opened.section_of_row)
    opened.add_table(fine.key, predicted_table(opened, selection.described, predictions))
    fine.write(opened, match)
    info(f"predict_slide: {opened.table.n_obs} positions every {fine.resolution_um:g} µm")
