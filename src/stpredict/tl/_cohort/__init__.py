"""Many slides: one record per slide, jobs on workers, the manifest."""
