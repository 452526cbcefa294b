"""Every way a YAML can be wrong is one line that says where, what and how to mend it; never a traceback."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.problems import ConfigProblems

HEAD = "plugins: [small_plugin]\nmodel: {arch: joined, path: w}\n"
RUN = HEAD + "run:\n  runner: jog\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)

# name -> (file, what the message must say; a leading number is the line)
FAULTS: dict[str, tuple[str | bytes, str]] = {
    "unknown top key": (RUN + "modle: {}\n", r"5:1: modle: .*did you mean 'model'"),
    "unknown key": (RUN + "  max_epohc: 1\n", r"5:3: run\.max_epohc: .*'max_epoch'"),
    "unknown nested key": (HEAD.replace("path: w", "path: w, bridge: {name: plank, bais: true}"), r"2:54: .*'bias'"),
    "wrong nesting up": (RUN + "  options: {}\nmax_txt_len: 3\n", r"6:1: .*belongs under `model`"),
    "wrong nesting down": (HEAD.replace("path: w", "path: w, bias: true"), r"belongs under `model\.bridge`"),
    "another framework's word": (RUN + "  learning_rate: 1\n", r"5:3: .*called 'init_lr'"),
    "text for a number": (RUN + "  weight_decay: heavy\n", r"5:3: .*float is wanted here, not the text 'heavy'"),
    "list for a number": (RUN + "  max_epoch: [1]\n", r"5:3: .*int is wanted here, not a list"),
    "mapping for a number": (RUN + "  max_epoch: {a: 1}\n", r"5:3: .*int is wanted here, not a mapping"),
    "fraction for an int": (RUN + "  max_epoch: 1.5\n", r"5:3: .*int is wanted here, not the float 1\.5"),
    "1e3 for an int": (RUN + "  max_epoch: 1e3\n", r"5:3: .*write 1000"),
    "quoted int": (RUN + "  max_epoch: '3'\n", r"5:3: .*take the quotes away"),
    "octal": (RUN + "  seed: 010\n", r"5:3: .*octal; write 10"),
    "base 60": (RUN + "  seed: 12:30\n", r"5:3: .*base-60"),
    "no for a bool": (RUN + "  amp: no\n", r"5:3: .*bool is wanted here, not the text 'no'; write false"),
    "2 for a bool": (RUN + "  amp: 2\n", r"5:3: .*bool is wanted here, not the int 2"),
    "no for a text": (RUN + "  output_dir: no\n", r'5:3: .*write "no"'),
    "null": (RUN + "  max_epoch: null\n", r"5:3: .*not null"),
    "null left empty": (RUN + "  output_dir:\n", r"5:3: .*write \"\" for an empty text"),
    "nan": (RUN + "  init_lr: .nan\n", r"5:3: .*float is wanted"),
    "text for a list": (RUN + "  trackers: jsonl\n", r"5:3: .*write \[jsonl\]"),
    "unknown tracker": (RUN + "  trackers: [jsonl, tensorbord]\n", r"5:21: .*'tensorboard'"),
    "tuple too long": (HEAD.replace("path: w", "path: w, size: [1, 2, 3]"), r"2 values are wanted here, not 3"),
    "tuple of texts": (HEAD.replace("path: w", "path: w, size: [1, x]"), r"model\.size\.1: int is wanted"),
    "not of the choices": (HEAD.replace("path: w", "path: w, precision: bf61"), r"one of fp32, bf16.*'bf16'"),
    "missing value": (HEAD.replace(", path: w", ""), r"2:1: model\.path: is required"),
    "placeholder": (HEAD.replace("path: w", "path: please set this to your path"), r"2:\d+: .*placeholder"),
    "placeholder path": (HEAD.replace("path: w", "path: /PATH/TO/llm"), r"placeholder"),
    "placeholder of OmegaConf": (HEAD.replace("path: w", "path: '???'"), r"placeholder"),
    "missing arch": ("plugins: [small_plugin]\nmodel: {path: x}\n", r"model\.arch: is required; known: .*joined"),
    "unknown arch": (HEAD.replace("joined", "joint"), r"2:9: .*unknown model 'joint'; did you mean 'joined'"),
    "unknown model_type": (HEAD.replace("path", "model_type: x, path"), r"2:23: .*unknown model_type 'x'"),
    "unknown runner": (HEAD + "run: {runner: jogg}\n", r"3:7: .*unknown runner 'jogg'; did you mean 'jog'"),
    "unknown part": (HEAD.replace("path: w", "path: w, bridge: planck"), r"unknown bridge 'planck'; .*'plank'"),
    "part without a name": (
        HEAD.replace("path: w", "path: w, encoders: {image: {patch: 3}}"),
        r"without `name`; known",
    ),
    "part that is a number": (HEAD.replace("path: w", "path: w, bridge: 3"), r"a bridge is wanted here"),
    "unknown plugin": ("plugins: [no_such_module]\n", r"1:11: plugins: module 'no_such_module' cannot be found"),
    "plugins no list": ("plugins: small_plugin\n", r"1:1: plugins: a list of module names"),
    "unknown data set": (RUN + "datasets: {nothing: {sample_ratio: 1}}\n", r"5:12: .*unknown data set 'nothing'"),
    "unknown split of a processor": (
        RUN + "datasets:\n  a:\n    builder: lines\n    annotations: {}\n    vis_processor: {trian: crop}\n",
        r"9:21: .*did you mean 'train'",
    ),
    "no data": (RUN, r"1:1: the top key `datasets:` is missing or empty"),
    "a scalar for a node": (HEAD + "run: fast\n", r"3:1: run: a mapping is wanted"),
    "interpolation of nothing": (RUN + "  output_dir: ${run.nothing}\n", r"5:3: .*cannot be resolved.*nothing"),
    "interpolation cycle": (RUN + "  output_dir: ${run.device}\n  device: ${run.output_dir}\n", r"5:3: .*cannot be"),
    "interpolation unfinished": (RUN + "  output_dir: ${run.device\n", r"5:3: .*cannot be resolved"),
    "environment unset": (RUN + "  output_dir: ${oc.env:NO_SUCH_NAME}\n", r"5:3: .*'NO_SUCH_NAME' not found"),
    "tab": (RUN + "\tmax_epoch: 3\n", r"5:1: a tab stands in the indentation"),
    "duplicate key": (RUN + "  seed: 1\n  seed: 2\n", r"6:3: seed: .*first in line 5"),
    "syntax": (RUN + "  seed: [1\n", r"\d+:\d+: not valid YAML"),
    "not UTF-8": (RUN.encode() + b"  output_dir: \xe9t\xe9\n", r"5:15: not UTF-8"),
    "control character": (RUN + "  output_dir: a\x07b\n", r"5:16: a character"),
    "empty file": ("", r"the file is empty"),
    "only comments": ("# nothing\n", r"the file is empty"),
    "a list at the top": ("- a\n", r"the top is a list"),
    "two documents": (HEAD + "---\nrun: {}\n", r"not valid YAML: .*single document"),
    "python tag": (RUN + "  output_dir: !!python/object/apply:os.system [echo]\n", r"5:15: the tag !!python"),
    "alias bomb": (BOMB, r"nested or aliased too much"),
    "alias cycle": ("a: &a [*a]\n", r"nested or aliased too much|not valid YAML"),
    "endless nesting": ("a: " + "[" * 2000 + "]" * 2000, r"nested or aliased too much"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_is_told_with_its_line(name, write):
    text, wanted = FAULTS[name]
    with pytest.raises(ConfigError) as error:
        load_settings(write(text), needs=["model"])
    lines = str(error.value).split("\n")
    assert any(re.search(rf"^a\.yaml(:\d+:\d+)?: .*{_after_place(wanted)}", line) for line in lines), lines
    assert any(re.search(wanted, line) for line in lines), lines


def _after_place(wanted: str) -> str:
    return re.sub(r"^[\d\\d+]+:[\d\\d+]+: ", "", wanted)


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("run.max_epohc=1", r"--options run\.max_epohc=1: run\.max_epohc: .*'max_epoch'"),
        ("max_epoch=1", r"--options max_epoch=1: max_epoch: wrong nesting: .*`run`"),
        ("run.seed=[1", r"--options run\.seed=\[1: not valid YAML"),
        ("run..seed=1", r"not a dotted key"),
        ("run.seed", r"no key=value"),
        ("run.seed.x=1", r"int is wanted here, not a mapping"),
        ("run.amp=yes", r"write true"),
        ("run.runner=jogg", r"unknown runner 'jogg'"),
        ("run=3", r"run: a mapping is wanted"),
        ("datasets.x.max_samples=1", r"--options datasets\.x\.max_samples=1: datasets\.x: unknown data set"),
        ("run.seed=!!python/name:os.system x", r"the tag !!python"),
    ],
)
def test_a_bad_option_is_told_with_what_was_typed(option, wanted, write):
    with pytest.raises(ConfigError) as error:
        load_settings(write(), [option])
    assert re.search(wanted, str(error.value)), str(error.value)


def test_all_problems_come_in_one_error_in_the_order_of_the_file(write):
    text = RUN.replace("path: w", "pth: w") + "  seed: x\n  amp: 1\n"
    with pytest.raises(ConfigProblems) as error:
        load_settings(write(text), ["run.sed=1"])
    lines = [p.place.line for p in error.value.problems]
    assert len(lines) == 6  # pth, path, no data, seed, amp, the option
    assert lines == [*sorted(lines[:-1]), 0]


def test_a_missing_file_and_a_folder_are_told_with_the_nearest(write, world):
    write()
    with pytest.raises(ConfigError, match=r"no such file; did you mean a\.yaml"):
        load_settings("aa.yaml")
    with pytest.raises(ConfigError, match="it is a folder"):
        load_settings(world)


def test_a_plugin_that_is_no_python_is_an_error_of_the_configuration(write, world):
    (world / "small_plugin.py").write_text("registry.register(\n")
    with pytest.raises(ConfigError, match=r"small_plugin\.py:\d: not valid Python"):
        load_settings(write())


def _mutate(tree: object, rng: random.Random) -> None:
    """Delete, rename or retype one key somewhere."""
    nodes = [tree]
    for node in nodes:
        if isinstance(node, dict):
            nodes += [v for v in node.values() if isinstance(v, dict) and v]
    node = rng.choice([n for n in nodes if n])
    assert isinstance(node, dict)
    key = rng.choice(list(node))
    act = rng.randrange(3)
    if act == 0:
        del node[key]
    elif act == 1:
        node[key[:-1] + "q"] = node.pop(key)
    else:
        node[key] = rng.choice(
            [None, True, 3, 1.5, "word", [], [1], {}, {"a": 1}, "${x}", "???", "", [[]], {"name": 3}]
        )


def test_two_hundred_mutations_are_valid_or_refused_never_a_crash(write):
    plain = yaml.safe_load(Path(write()).read_text())
    refused = 0
    for number in range(200):
        tree = yaml.safe_load(yaml.safe_dump(plain))
        rng = random.Random(number)
        for _ in range(rng.randint(1, 2)):
            _mutate(tree, rng)
        try:
            load_settings(write(yaml.safe_dump(tree)))
        except ConfigError as error:
            refused += bool(str(error))
    assert 100 < refused < 200
