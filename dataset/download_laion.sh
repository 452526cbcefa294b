#!/bin/sh
# Print the commands that fetch laion (list of URLs, table, pictures by img2dataset in its own environment);
# `sh dataset/download_laion.sh --run` runs them.
exec python -m minigpt4o.cli data download laion "$@"
