"""Parts of `tl.evaluate`."""
