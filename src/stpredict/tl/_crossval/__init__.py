"""Folds, jobs, store, scores and protocol of a cross-validation."""
