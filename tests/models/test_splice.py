"""Claims about splicing: features land in their slots in row order, and a disagreement names sample and counts."""

from __future__ import annotations

import pytest
import torch

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import AUDIO_SLOT, IMAGE_SLOT
from minigpt4o.conversation.sample import Media, Sample
from minigpt4o.models.splice import splice

I, A = IMAGE_SLOT, AUDIO_SLOT  # noqa: E741


def embed(ids: torch.Tensor) -> torch.Tensor:
    return ids.unsqueeze(-1).float().expand(-1, -1, 2).clone()


def feature(*values: float) -> torch.Tensor:
    """(N, P, 2) features whose numbers tell where they came from."""
    return torch.tensor(values).view(len(values), 1, 1) + torch.arange(2).view(1, 2, 1) / 10 + torch.zeros(1, 1, 2)


def sample(index: int, images: int = 0, audios: int = 0) -> Sample:
    return Sample(f"train/{index}", [], [Media()] * images, [Media()] * audios, where=f"captions.json: row {index}")


def test_features_land_in_their_slots_in_row_order_and_text_stays():
    ids = torch.tensor([[7, I, I, 8, A, A], [I, I, 9, I, I, 5]])
    out = splice(ids, embed, {"image": feature(100, 200, 300), "audio": feature(50)})
    expected = [[7, 100, 100.1, 8, 50, 50.1], [200, 200.1, 9, 300, 300.1, 5]]
    torch.testing.assert_close(out[..., 0], torch.tensor(expected))


def test_the_gradient_reaches_each_feature_once():
    features = feature(1, 2).requires_grad_()
    ids = torch.tensor([[I, I, 3, I, I]])
    splice(ids, embed, {"image": features}).sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))


def test_a_disagreement_names_the_sample_and_both_counts():
    ids = torch.tensor([[I, I, 3], [I, I, I]])
    with pytest.raises(DataError) as error:
        splice(ids, embed, {"image": feature(1, 2)}, [sample(16, images=1), sample(17, images=1)])
    for word in ("3 places for picture features", "train/17", "captions.json: row 17", "1 x 2"):
        assert word in str(error.value)


def test_slots_without_any_media_are_refused():
    with pytest.raises(DataError, match=r"2 places for sound features .*train/1.* no sound was encoded"):
        splice(torch.tensor([[1, 2], [A, A]]), embed, {}, [sample(0), sample(1)])


def test_media_without_slots_are_refused():
    with pytest.raises(DataError, match=r"0 places for picture features .*1 x 2"):
        splice(torch.tensor([[1, 2]]), embed, {"image": feature(1)})


def test_a_batch_of_text_is_only_embedded():
    torch.testing.assert_close(splice(torch.tensor([[1, 2]]), embed, {}), embed(torch.tensor([[1, 2]])))
