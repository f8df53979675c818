"""Where measured spots belong in an image: evidence, motions, and the search for the best one.

Arrays only; lengths in µm from the corner of the image, x before y.
"""

from __future__ import annotations

from stpredict.alignment._evidence import Evidence, pitch_of, rim_of
from stpredict.alignment._motion import apply, motion
from stpredict.alignment._search import MOTIONS, Estimate, estimate

__all__ = ["MOTIONS", "Estimate", "Evidence", "apply", "estimate", "motion", "pitch_of", "rim_of"]
