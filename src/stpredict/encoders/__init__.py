"""Encoders: frozen networks and functions that map tiles to embeddings."""

from stpredict.encoders._encoder import Encoder
from stpredict.encoders._load import load
from stpredict.encoders._record import EncoderRecord
from stpredict.encoders._register import register
from stpredict.encoders._registry import names, record, table

__all__ = ["Encoder", "EncoderRecord", "load", "names", "record", "register", "table"]


def __dir__() -> list[str]:
    return sorted(__all__)
