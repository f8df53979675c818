"""Realign spots with the tissue."""
