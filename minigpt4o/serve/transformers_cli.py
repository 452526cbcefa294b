"""The command line of transformers (`transformers serve`, ...) with Minigpt4o known to it.

    python -m minigpt4o.serve.transformers_cli serve FOLDER --device cpu

transformers' own server asks its table of models, by name, for the class and for what a model can take; the Auto
classes' public `register` does not reach that table. Everything else is theirs, options included.
"""

from __future__ import annotations

MODEL_TYPE, CLASS = "minigpt4o", "Minigpt4oForConditionalGeneration"


def make_known() -> None:
    """Tell the server that Minigpt4o takes text, pictures and sounds."""
    from transformers.models.auto import modeling_auto

    modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[MODEL_TYPE] = CLASS


def main() -> None:
    """`transformers`, after `make_known`."""
    from transformers.cli.transformers import main as transformers_main

    make_known()
    transformers_main()


if __name__ == "__main__":
    main()
