"""Gene variability and principal components of expression."""
