"""Parts of super-resolution that work on arrays, section by section or block by block."""
