"""Replay the steps a model was trained with."""
