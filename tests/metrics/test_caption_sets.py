"""Our caption scorers equal the COCO tools' Python scorers on random caption sets."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from minigpt4o.metrics.caption import bleu, cider, cider_d, frequencies, rouge_l, spider
from minigpt4o.metrics.chrf import chrf
from minigpt4o.metrics.meteor import aligned, meteor_exact
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.stem import stem

HERE = Path(__file__).parent
# Made with pycocoevalcap 1.2 (Bleu, Rouge, Cider of its Python scorers) and sacrebleu 2.6.0 (CHRF) over `caption_sets`.
FROZEN = json.loads((HERE / "caption_values.json").read_text())


def load_sets() -> ModuleType:
    spec = spec_from_file_location("caption_sets", HERE / "caption_sets.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sets = load_sets()


def cut(texts: list[str]) -> list[list[str]]:
    return [text.split(" ") if text else [] for text in texts]


def ours(number: int) -> dict[str, Measured]:
    texts, references = sets.caption_set(number)
    candidates, truths = cut(texts), [cut(one) for one in references]
    found = {f"bleu_{order}": bleu(candidates, truths, order) for order in (1, 2, 3, 4)}
    return found | {"rouge_l": rouge_l(candidates, truths), "cider_d": cider_d(candidates, truths)}


def test_random_sets_sum_to_what_the_coco_tools_summed_to() -> None:
    sums = dict.fromkeys(FROZEN["sums_of_250"], 0.0)
    for number in range(250):
        for name, measured in ours(number).items():
            sums[name] += measured.value
            if number < len(FROZEN["first"]):
                assert measured.value == pytest.approx(FROZEN["first"][number][name], abs=1e-12), (number, name)
    assert sums == pytest.approx(FROZEN["sums_of_250"], abs=1e-9)


def test_every_sample_of_a_thousand_sets_equals_the_coco_tools_if_they_are_installed() -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed; the frozen values above stand in")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    sums = dict.fromkeys(FROZEN["sums"], 0.0)
    for number in range(sets.SETS):
        texts, references = sets.caption_set(number)
        truth, said = dict(enumerate(references)), {place: [text] for place, text in enumerate(texts)}
        found = ours(number)
        with contextlib.redirect_stdout(io.StringIO()):
            _, bleus = Bleu(4).compute_score(truth, said, verbose=0)
            theirs = {f"bleu_{order}": bleus[order - 1] for order in (1, 2, 3, 4)}
            theirs["rouge_l"] = Rouge().compute_score(truth, said)[1]
            theirs["cider_d"] = Cider().compute_score(truth, said)[1]
        for name, each in theirs.items():
            sums[name] += found[name].value
            assert found[name].each == pytest.approx(list(each), abs=1e-9), (number, name)
    assert sums == pytest.approx(FROZEN["sums"], abs=1e-8)


def test_letter_runs_score_as_sacrebleu_scores_them() -> None:
    for number, value in enumerate(FROZEN["chrf"]):
        texts, references = sets.caption_set(number)
        assert chrf(texts, references).value == pytest.approx(value, abs=1e-12)
    assert chrf(["赤い丸"], [["赤い丸"]]).value == pytest.approx(1.0)
    assert chrf(["", "a"], [["x"], []]).value == 0.0


def test_frequencies_of_another_corpus_may_be_given() -> None:
    references = [cut(["a red star shines", "the star is red"]), cut(["two dogs run", "dogs run fast"])]
    said = cut(["a red star", "two dogs"])
    own = frequencies(references)
    assert cider_d(said, references, own).each == cider_d(said, references).each
    larger = frequencies([*references, *[cut(["a red dog"])] * 8])
    assert cider_d(said, references, larger).value != cider_d(said, references).value
    assert "given, of 10 samples" in cider(said, references, larger).variant


def test_spider_is_reported_only_with_somebodys_spice() -> None:
    found = Measured(1.5, [1.0, 2.0], "CIDEr-D")
    assert spider(found, None) is None
    both = spider(found, [0.5, 0.0])
    assert both is not None and both.each == [0.75, 1.0]


def test_meteor_exact_matches_stems_rewards_order_and_knows_its_name() -> None:
    reference = [[["a", "dog", "is", "running", "fast"]]]
    same = meteor_exact([["a", "dog", "is", "running", "fast"]], reference)
    assert same.value == pytest.approx(1 - 0.5 / 5**3)
    swapped = meteor_exact([["fast", "running", "is", "dog", "a"]], reference).value
    stems = meteor_exact([["a", "dogs", "is", "runs", "fast"]], reference).value
    assert swapped == pytest.approx(0.5)
    assert stems == pytest.approx(same.value)
    assert same.variant.startswith("meteor_exact")
    assert aligned(["the", "cat", "the"], ["the", "the", "cat"]) == [(0, 0), (1, 2), (2, 1)]


STEMS = """caresses caress ponies poni ties ti cats cat feed feed agreed agre plastered plaster motoring motor sing sing
conflated conflat troubled troubl sized size hopping hop falling fall hissing hiss filing file happy happi sky sky
relational relat conditional condit digitizer digit operator oper formalize formal electrical electr goodness good
revival reviv adjustment adjust adoption adopt probate probat rate rate cease ceas controll control roll roll"""


def test_stems_are_porters() -> None:
    pairs = STEMS.split()
    assert [stem(word) for word in pairs[::2]] == pairs[1::2]
    assert [stem(word) for word in ("is", "3.5", "über", "n't")] == ["is", "3.5", "über", "n't"]
