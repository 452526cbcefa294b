#!/bin/sh
# Print the commands that fetch cc_sbu (list of URLs, table, pictures by img2dataset in its own environment);
# `sh dataset/download_cc_sbu.sh --run` runs them.
exec python -m minigpt4o.cli data download cc_sbu "$@"
