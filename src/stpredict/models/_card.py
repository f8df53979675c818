"""The model card that is saved beside a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpredict.models._methods import METHODS

if TYPE_CHECKING:
    from stpredict.models._model import Model


def card(model: Model) -> str:
    """Describe a model in Markdown: what it predicts, from what, and how it was made."""
    training = model.training
    lines = [
        f"# {model.method}: {len(model.genes)} genes from H&E",
        "",
        f"Made with stpredict {training['versions'].get('stpredict', '')}.",
        "",
        "```python",
        "import stpredict as stp",
        "",
        'model = stp.models.load("…")',
        "stp.pp.prepare(sdata, model)",
        "stp.tl.predict(sdata, model)",
        "```",
        "",
        "## What it predicts",
        "",
        f"- {len(model.genes)} genes, such as {', '.join(model.genes[:5])}",
        f"- units: `{model.units}`",
        "",
        "## From what",
        "",
        *_inputs(model),
        "",
        "## Training",
        "",
        *_training(training),
        *_weighing(training.get("sample_weight")),
        f"- seed {training['seed']}",
        *[f"- {name} {version}" for name, version in training["versions"].items()],
        "",
        *_calibration(model),
        "Scores on data it has not seen are not part of this card: run `stp.tl.evaluate` on a "
        "section that was held out.",
        "",
        "## Paper",
        "",
        METHODS[model.method].paper,
        "",
    ]
    return "\n".join(lines)


def _inputs(model: Model) -> list[str]:
    if model.bases:
        return [
            f"- `{name}`, in `base_{number}`: {base.method} from {'; '.join(_inputs(base))[2:]}"
            for number, (name, base) in enumerate(
                zip(model.hyperparameters["bases"], model.bases, strict=True)
            )
        ]
    if model.uses_pixels:
        tiles = model.recipe["tiles"]
        return [
            f"- pixels: tiles of {tiles['tile_um']:g} µm at {tiles['tile_px']} px",
            f"- stain: {_stain(tiles.get('stain'))}",
        ]
    embed = model.recipe["embed"]
    if "tile_um" not in embed:
        return [f"- embeddings in `obsm[{model.recipe['embedding']!r}]`, context `{model.context}`"]
    return [
        f"- encoder `{embed['encoder']}`, tiles of {embed['tile_um']:g} µm, "
        f"{embed['n_subtiles']} × {embed['n_subtiles']} sub-tiles",
        f"- stain: {_stain(embed.get('stain'))}",
        f"- context `{model.context}`, neighbours: {_rule(model.recipe.get('neighbors'))}",
    ]


def _training(training: dict[str, Any]) -> list[str]:
    if not training["sections"]:
        return ["- weights as published; the release does not say on which sections"]
    return [
        *_sections(training),
        f"- held out for early stopping: {training['held_out']} "
        f"({training['n_held_out']} spots), best epoch {training['best_epoch']}",
    ]


def _calibration(model: Model) -> list[str]:
    """Say what is known of its errors, where it was calibrated."""
    known = model.calibration
    if known is None:
        return []
    covered = ", ".join(
        f"{name} {share:.0%}".replace("%", " %") for name, share in known.coverage_of_groups.items()
    )
    return [
        "## Uncertainty",
        "",
        f"- intervals that are to hold {known.level:.0%} of the values".replace("%", " %"),
        f"- held in the groups left out in turn: {covered}",
        f"- {int(known.reliable.sum())} of {len(model.genes)} genes are reliable: they beat the "
        "training mean and the spatial null on groups left out",
        "",
    ]


def _sections(training: dict[str, Any]) -> list[str]:
    if "before" in training:
        new = ", ".join(training["finetuned_on"])
        before = _sections(training["before"])
        return [*before, f"- finetuned on: {new} ({training['n_spots']} spots)"]
    if not training["sections"]:
        return ["- weights as published"]
    return [f"- sections: {', '.join(training['sections'])} ({training['n_spots']} spots)"]


def _weighing(weights: dict[str, Any] | None) -> list[str]:
    if not weights:
        return []
    return [f"- spots drawn by the weights in `obs[{weights['column']!r}]`"]


def _rule(neighbors: dict[str, Any] | None) -> str:
    if not neighbors:
        return "none"
    return ", ".join(f"{name} {value}" for name, value in neighbors.items())


def _stain(reference: dict[str, Any] | None) -> str:
    if not reference:
        return "as scanned"
    return f"normalised to the reference in `config.json` ({reference['method']})"
