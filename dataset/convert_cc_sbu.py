"""BLIP's ccs_synthetic_filtered_large.json -> the tsv that img2dataset reads (the same as `data convert --to tsv`).

python dataset/convert_cc_sbu.py ccs_synthetic_filtered_large.json ccs_synthetic_filtered_large.tsv
"""

import sys

from minigpt4o.cli import main

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: convert_cc_sbu.py LIST.json TABLE.tsv")
    sys.exit(main(["data", "convert", sys.argv[1], "--from", "blip", "--to", "tsv", "--out", sys.argv[2]]))
