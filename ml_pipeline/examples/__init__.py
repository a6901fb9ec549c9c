"""Programs that show the package at work; each runs as a script."""
