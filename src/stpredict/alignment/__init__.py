"""Estimate the motion that aligns measured spots with an image, in µm."""

from stpredict.alignment._evidence import Evidence, pitch_of, rim_of
from stpredict.alignment._motion import motion_matrix, move_points
from stpredict.alignment._search import MOTIONS, MotionEstimate, estimate_motion

__all__ = [
    "MOTIONS",
    "Evidence",
    "MotionEstimate",
    "estimate_motion",
    "motion_matrix",
    "move_points",
    "pitch_of",
    "rim_of",
]
