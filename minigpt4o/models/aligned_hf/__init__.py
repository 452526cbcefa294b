"""The aligned model in the ways of transformers: what an exported folder of an arrangement of our own opens as."""
