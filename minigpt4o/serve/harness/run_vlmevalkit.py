"""Start VLMEvalKit with our model: `python -m minigpt4o.serve.harness.run_vlmevalkit --path RUN --data SET`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from minigpt4o.common.errors import ConfigError


def main(words: Sequence[str] | None = None) -> None:
    """Make `minigpt4o` a model VLMEvalKit knows, by `--model` and as a class in a `--config`, and run VLMEvalKit.

    Words that are not ours (`--data`, `--work-dir`, `--mode`, `--judge`, ...) are VLMEvalKit's.
    """
    ours, theirs = read(sys.argv[1:] if words is None else words)
    import vlmeval.config
    import vlmeval.run
    import vlmeval.vlm

    from minigpt4o.serve.harness.vlmevalkit import Minigpt4o

    vlmeval.vlm.Minigpt4o = Minigpt4o
    name = ours.pop("name")
    vlmeval.config.supported_VLM[name] = partial(Minigpt4o, **ours)
    if not {"--model", "--config"} & set(theirs):
        theirs = [*theirs, "--model", name]
    sys.argv = [vlmeval.run.__file__, *theirs]
    vlmeval.run.main()


def read(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Our arguments as keywords of `Minigpt4o` with its `name`, and the words that are VLMEvalKit's."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--path", default="", help="YAML, run or checkpoint folder, or arch:model_type")
    parser.add_argument("--checkpoint", help="laid over what the YAML names")
    parser.add_argument("--profile", default="", help="compat = the reference's prompts")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--name", default="minigpt4o", help="what the results are filed under")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer")
    parser.add_argument("--options", nargs="*", default=[], help="key=value of the YAML")
    parser.add_argument("--prompt", action="append", default=[], help="DATASET=wording with {question}; may come again")
    found, theirs = parser.parse_known_args(list(words))
    ours = {name: value for name, value in vars(found).items() if value not in (None, [])}
    ours["prompts"] = dict(_wording(word) for word in ours.pop("prompt", []))
    return ours, theirs


def _wording(word: str) -> tuple[str, str]:
    dataset, equals, wording = word.partition("=")
    if not equals:
        raise ConfigError(
            f"--prompt {word!r}: write DATASET=wording, with columns of its table in braces: {{question}}"
        )
    return dataset, wording


if __name__ == "__main__":
    main()
