"""A guest of gahb."""
