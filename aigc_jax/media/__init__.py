"""Arrays as image, plot, text and music files, each with provenance metadata."""
