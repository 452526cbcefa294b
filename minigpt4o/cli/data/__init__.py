"""The command `data`: list, convert, download, index, check, show, stats, curate."""
