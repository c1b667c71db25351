"""HTML pages of runs: one file each, without network access."""
