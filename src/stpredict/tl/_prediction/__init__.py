"""Prediction of opened tables: inputs, blocks of a slide, and the table that is written."""
