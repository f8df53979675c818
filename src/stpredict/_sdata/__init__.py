"""The one boundary with SpatialData: sections, elements, images, tissue, provenance, steps."""
