"""The shared runner behind every ``fit_*``."""
