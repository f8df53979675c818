"""Recorded steps."""
