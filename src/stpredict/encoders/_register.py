"""Encoders of the user."""

from __future__ import annotations

from stpredict._arguments import checked
from stpredict.encoders._aliases import canonical
from stpredict.encoders._record import EncoderRecord
from stpredict.encoders._registry import RECORDS, names


@checked
def register(record: EncoderRecord) -> None:
    """Add an encoder, so that its name can be used like those of `names`.

    Models that were trained on its embeddings prepare new sections by this name, after the encoder
    was registered in the process. An encoder that was registered before is replaced.

    Parameters
    ----------
    record
        Record of the encoder. Increase ``version`` when its results change.

    Raises
    ------
    TypeError
        If `record` is not an :class:`stpredict.encoders.EncoderRecord`.
    ValueError
        If the name is that of another encoder, or is not letters, digits and ``_``.

    Examples
    --------
    >>> from torch import nn
    >>> from stpredict import encoders
    >>> def build():
    ...     return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    >>> encoders.register(encoders.EncoderRecord("thumbnail", build, dimension=12))
    >>> encoders.load("thumbnail").dimension
    12
    """
    if record.name not in RECORDS and canonical(record.name) in names():
        raise ValueError(f"there is an encoder {record.name!r} already: give yours another name")
    RECORDS.add(record)
