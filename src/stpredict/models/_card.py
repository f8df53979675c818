"""Model card, repr and HTML repr of a model, all written from the same facts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict.models._methods import method_of
from stpredict.targets._high import High

if TYPE_CHECKING:
    from stpredict.models._config import ModelState
    from stpredict.models._records import TrainingRecord

    #: Label and text.
    Fact = tuple[str, str]

#: Longest line of a repr.
_WIDTH = 100

_USAGE = """```python
import stpredict as stp

model = stp.models.load("…")
stp.pp.prepare(sdata, model)
stp.tl.predict(sdata, model)
```"""

_SCORES = (
    "Scores on unseen data are not part of this card: run `stp.tl.evaluate` on a held-out section."
)


def summary(model: ModelState) -> str:
    """Describe a model in about ten lines."""
    lines = [f"Model {_title(model)}"]
    for label, text in (fact for facts in _chapters(model).values() for fact in facts):
        line = f"  {label}: {text}"
        if label not in ("seed", "versions"):
            lines.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…")
    if model.calibration is None:
        lines.append("  calibration: none")
    return "\n".join(lines)


def card(model: ModelState) -> str:
    """Describe a model in Markdown: its predictions, its inputs, and its training."""
    version = model.training.versions.get("stpredict", "")
    parts = [f"# {_title(model)}", f"Made with stpredict {version}.", _USAGE]
    for title, facts in _chapters(model).items():
        parts += [f"## {title}", "\n".join(f"- {label}: {text}" for label, text in facts)]
    return "\n\n".join([*parts, _SCORES, "## Paper", method_of(model.method).paper]) + "\n"


def card_html(model: ModelState) -> str:
    """Describe a model in HTML, as notebooks show it."""
    parts = [f"<h3>{escape(_title(model))}</h3>"]
    for title, facts in _chapters(model).items():
        rows = "".join(
            f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in facts
        )
        parts.append(f"<h4>{escape(title)}</h4><table>{rows}</table>")
    return f"<div>{''.join(parts)}<p>{escape(method_of(model.method).paper)}</p></div>"


def _title(model: ModelState) -> str:
    return f"{model.method}: {len(model.genes)} genes from H&E"


def _chapters(model: ModelState) -> dict[str, list[Fact]]:
    training, genes = model.training, _validate.listing(model.genes, most=5)
    versions = ", ".join(f"{name} {each}" for name, each in training.versions.items())
    chapters = {
        "Predictions": [("genes", genes), ("units", _units(model))],
        "Inputs": _inputs(model),
        "Training": [*_training(training), ("seed", str(training.seed)), ("versions", versions)],
        "Uncertainty": _uncertainty(model),
    }
    return {title: facts for title, facts in chapters.items() if facts}


def _units(model: ModelState) -> str:
    if isinstance(model.targets, High):
        return f"{model.units}, above the {model.targets.quantile:g} quantile of training"
    return model.units


def _inputs(model: ModelState) -> list[Fact]:
    if model.bases:
        return [
            (f"base {name}", "; ".join([base.method, *map(" ".join, _inputs(base))]))
            for name, base in model.bases.items()
        ]
    recipe, stain, rule = model.recipe, "as scanned", "none"
    if recipe.stain is not None:
        stain = f"normalised to the reference in config.json ({recipe.stain.method})"
    if recipe.tiles is not None:
        tiles = f"{recipe.tiles.tile_um:g} µm at {recipe.tiles.tile_px} px"
        return [("tiles", f"pixels of {tiles}"), ("stain", stain)]
    if recipe.neighbors is not None:
        # published releases have a graph, but do not report its rule
        step = recipe.neighbors.to_plain().items()
        rule = ", ".join(f"{name} {value}" for name, value in step) or "not reported"
    context = ("context", f"{model.context}, neighbours: {rule}")
    embed = recipe.embed
    facts = [context]
    if recipe.standardize == "section":
        facts.append(("features", "standardised within each section"))
    # nor do they report their tiles
    if embed is None or not embed.fields_um:
        return [("embedding", f"obsm[{recipe.embedding!r}]"), *facts]
    tiles = f"{embed.sides}, {embed.n_subtiles} × {embed.n_subtiles} sub-tiles"
    return [("encoder", str(embed.encoder)), ("tiles", tiles), ("stain", stain), *facts]


def _training(training: TrainingRecord) -> list[Fact]:
    facts = _sections(training)
    if not training.sections:
        return facts
    held_out = training.held_out
    if training.n_held_out:
        held_out += f" ({training.n_held_out} spots)"
    if training.best_epochs:
        epochs = ", ".join(map(str, training.best_epochs))
        held_out += f", best epoch {'of each network ' * (len(training.best_epochs) > 1)}{epochs}"
    facts.append(("held out", held_out))
    if training.sample_weight is not None:
        facts.append(("spots drawn by", f"obs[{training.sample_weight.column!r}]"))
    return facts


def _sections(training: TrainingRecord) -> list[Fact]:
    # the sections of a finetuned model include those of the original model
    if training.before is not None:
        finetuned_on = f"{', '.join(training.finetuned_on)} ({training.n_spots} spots)"
        return [*_sections(training.before), ("finetuned on", finetuned_on)]
    if not training.sections:
        return [("sections", "weights as published, the release does not report its sections")]
    return [("sections", f"{', '.join(training.sections)} ({training.n_spots} spots)")]


def _uncertainty(model: ModelState) -> list[Fact]:
    """Measured errors of a calibrated model."""
    calibration = model.calibration
    if calibration is None:
        return []
    coverage = calibration.coverage_of_groups.items()
    nulls = "better than the training mean and the spatial null on left-out groups"
    return [
        ("intervals", f"{100 * calibration.level:.0f} % of measured values"),
        ("coverage on left-out groups", ", ".join(f"{k} {100 * v:.0f} %" for k, v in coverage)),
        ("reliable genes", f"{int(calibration.reliable.sum())} of {len(model.genes)}, {nulls}"),
    ]
