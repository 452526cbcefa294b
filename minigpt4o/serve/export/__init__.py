"""`export`: a checkpoint as a Hugging Face folder with its model card, checked against the model it was made of."""

from minigpt4o.serve.export.command import main

__all__ = ["main"]
