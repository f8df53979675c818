"""Tissue, spots and expression of the phantom, as arrays."""
