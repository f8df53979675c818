"""Every slot name stpredict reads or writes, in one place."""

from __future__ import annotations

import re
from pathlib import Path

TABLE = "table"
PREDICTED = "predicted"
SUPERRESOLVED = "superresolved"
ADAPTED = "adapted"
DENOISED = "denoised"
OUT_OF_FOLD = "out_of_fold"

REGION = "region"
INSTANCE = "instance_id"
PATIENT = "patient"

SPATIAL = "spatial"
CONNECTIVITIES = "spatial_connectivities"
DISTANCES = "spatial_distances"

GENE_IDS = "gene_ids"
GENE_SYMBOLS = "gene_symbols"

ABUNDANCE = "abundance"
LOG1P = "log1p"
RANKS = "ranks"
SMOOTHED = "smoothed"
STD = "std"
FOLD = "fold"
GROUP = "group"
LOWER = "lower"
UPPER = "upper"
RELIABLE = "reliable"
THRESHOLD = "threshold"  # above which a gene is high, for targets="high"
FAMILIARITY = "familiarity"
MEASURED = "measured"
SELECTED = "selected"
SPOT = "spot"
TISSUE_FRACTION = "tissue_fraction"
SAMPLING_WEIGHT = "sampling_weight"

UNKNOWN_UNITS = "unknown units"  # of predictions that another tool made

UNS = "stpredict"
REALIGN = "realign"  # step that is recorded section by section
ADAPT = "adapt"  # step that used measured spots
OUTSIDE = "outside_image"  # spots that a reader dropped, section by section


def slide(path: Path) -> str:  # section of a file, in the letters that SpatialData can write
    stem = re.sub(r"\.ome$", "", path.name.removesuffix(path.suffix), flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]", "_", stem).lstrip("_.") or "slide"


def image(section: str) -> str:  # image element of a section
    return f"{section}_image"


def section_of(image: str) -> str:  # section of an image, by its name
    return image.removesuffix("_image")


def tissue(image: str) -> str:  # labels element with the tissue in an image
    return f"{image}_tissue"


def normalized(image: str) -> str:  # image element with the normalised stain of an image
    return f"{image}_normalized"


def um(section: str) -> str:  # coordinate system of a section in which lengths are µm
    return f"{section}_um"


def section_of_um(system: str) -> str | None:  # None for other coordinate systems
    section = system.removesuffix("_um")
    return section if system == um(section) else None


def embedding(encoder: str) -> str:  # obsm slot with the embedding of whole tiles
    return f"X_{encoder}"


def attribution(gene: str) -> str:  # obsm and obsp slots with what a prediction is due to
    # what SpatialData allows in no name becomes an underscore
    return "attribution_" + "".join(c if c.isalnum() or c in "_.-" else "_" for c in gene)


def subtiles(embedding: str) -> str:  # obsm slot with the embeddings of sub-tiles
    return f"{embedding}_subtiles"
