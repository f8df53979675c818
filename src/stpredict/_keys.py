"""Every slot name stpredict reads or writes, in one place."""

from __future__ import annotations

TABLE = "table"
PREDICTED = "predicted"

REGION = "region"
INSTANCE = "instance_id"
PATIENT = "patient"

SPATIAL = "spatial"
CONNECTIVITIES = "spatial_connectivities"
DISTANCES = "spatial_distances"

LOG1P = "log1p"
STD = "std"
RIDGE = "ridge"
SELECTED = "selected"
TISSUE_FRACTION = "tissue_fraction"

UNS = "stpredict"


def image(section: str) -> str:
    """Name of the image element of a section."""
    return f"{section}_image"


def normalized(image: str) -> str:
    """Name of the image element with the normalised stain of an image."""
    return f"{image}_normalized"


def um(section: str) -> str:
    """Name of the coordinate system of a section in which lengths are µm."""
    return f"{section}_um"


def embedding(encoder: str) -> str:
    """Name of the ``obsm`` slot with the embedding of whole tiles."""
    return f"X_{encoder}"


def subtiles(embedding: str) -> str:
    """Name of the ``obsm`` slot with the embeddings of an embedding's sub-tiles."""
    return f"{embedding}_subtiles"
