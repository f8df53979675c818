"""Correction of predictions by measured spots: Gaussian processes, directions and intervals."""
