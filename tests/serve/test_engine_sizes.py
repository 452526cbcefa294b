"""How much an engine takes on is said once, in the YAML, for the page, the terminal and the server alike."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest
from api_server import serving

from minigpt4o.cli import main
from minigpt4o.cli.parser import parse
from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.serve.api.options import options_of
from minigpt4o.serve.engine import Engine, EngineSizes
from minigpt4o.serve.inference import chat_config

GIVEN = {"max_batch": 3, "max_waiting": 5, "media_cache_mb": 7, "reuse_mb": 0}


def test_the_sizes_of_the_yaml_are_those_of_the_engine(make_session) -> None:
    session = make_session(**GIVEN)
    assert asdict(session.engine.sizes) == GIVEN
    assert session.fresh().engine is session.engine
    assert make_session().engine.sizes == EngineSizes()


def test_the_yaml_has_the_defaults_of_the_engine() -> None:
    config = registry.get("runner", "chat").Config()
    assert {f.name: getattr(config, f.name) for f in fields(EngineSizes)} == asdict(EngineSizes())


def test_the_flags_of_serve_say_nothing_of_themselves() -> None:
    assert options_of(parse(["serve", "--cfg-path", "x.yaml"])).sizes == {}
    assert options_of(parse(["serve", "--cfg-path", "x.yaml", "--max-batch", "4"])).sizes == {"max_batch": 4}


def test_the_server_takes_them_from_the_yaml_unless_flags_say_otherwise(make_session) -> None:
    with serving(make_session(**GIVEN)) as api:
        assert asdict(api.service.engine.sizes) == GIVEN
    with serving(make_session(**GIVEN), max_batch=2) as api:
        assert asdict(api.service.engine.sizes) == {**GIVEN, "max_batch": 2}


@pytest.mark.parametrize("option", ["max_batch=0", "max_waiting=-1", "media_cache_mb=-1", "temperature=0", "top_p=2"])
def test_what_could_answer_nothing_is_told_before_a_model_is_loaded(demo_yaml, option) -> None:
    settings = load_settings(demo_yaml, ["run.do_sample=true", f"run.{option}"])
    with pytest.raises(ConfigError, match=rf"^run: .*{option.partition('=')[0]} is {option.partition('=')[2]}"):
        chat_config(settings)
    check = ["--check", "run.do_sample=true", f"run.{option}"]
    assert main(["chat", "--cfg-path", str(demo_yaml), *check]) == 2
    assert main(["chat", "--cfg-path", str(demo_yaml), *check[:2]]) == 0


def test_an_engine_knows_no_other_sizes(tiny_model, tiny_encoder) -> None:
    with pytest.raises(TypeError, match="max_bach"):
        Engine(tiny_model, tiny_encoder, max_bach=3)
