"""Command line: ``stpredict predict``, ``train``, ``evaluate``, ``report`` and ``doctor``."""

from stpredict.cli._app import app, main

__all__ = ["app", "main"]
