"""Predictions of other tools, matched to spots and genes."""
