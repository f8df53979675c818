"""Audits of what a split and a score rest on: donors of sections, and noise of layers."""
