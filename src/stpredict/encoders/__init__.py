"""Encoders: frozen networks and functions that map tiles to embeddings."""

from __future__ import annotations

from stpredict.encoders._load import load
from stpredict.encoders._record import Encoder, EncoderRecord
from stpredict.encoders._registry import names, record

__all__ = ["Encoder", "EncoderRecord", "load", "names", "record"]
