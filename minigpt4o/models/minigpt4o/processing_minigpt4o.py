"""Text, pictures and sounds to what the model eats: each mark grows to the slots its picture or sound fills."""

# No `from __future__ import annotations`: transformers reads the annotation of **kwargs below.
import re
from collections.abc import Mapping
from typing import Any

from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import make_nested_list_of_images
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin, Unpack

from minigpt4o.models.minigpt4o.chat_template import CHAT_TEMPLATE
from minigpt4o.models.minigpt4o.sound_files import open_clips

# transformers sets such letters around tokens that a user typed (`sanitize_control_tokens`): these are no marks.
TYPED = "\U000f0000-\U000ffffd"
NEEDED = ("image", "boi", "eoi", "audio", "boa", "eoa")  # tokenizer.<name>_token
# Lengths of the text that say nothing about sounds, unless they stand in audio_kwargs.
TEXT_ONLY = ("padding", "max_length", "truncation", "pad_to_multiple_of", "padding_side", "return_attention_mask")
MAX_SAMPLES = 480_000  # of a clip, 30 s: what the sound tower hears at most


class Minigpt4oProcessor(ProcessorMixin):
    """Image processor, feature extractor and tokenizer in one; calls as Gemma3nProcessor's, with the same results.

    In the text a picture is marked by `<image_soft_token>` and a sound by `<audio_soft_token>`. `<start_of_image>` or
    `<start_of_audio>` alone, and whole frames (`<start_of_image><image_soft_token><end_of_image>`), are marks too. Each
    mark becomes a blank line, the start, `image_seq_length` (`audio_seq_length`) soft tokens, the end, a blank line.
    A soft token that a user typed counts as a mark and so is an error (more marks than media), unless
    `apply_chat_template(..., sanitize_control_tokens=True)` writes it as ordinary text.

    A turn asks about one sound, its last; sounds before it in the same turn are examples, each followed by text (a
    few-shot prompt; sounds in turns of their own are better). Two sounds side by side in a turn are an error.
    """

    return_mm_token_type_ids = True

    def __init__(
        self,
        feature_extractor: Any,
        image_processor: Any,
        tokenizer: Any,
        chat_template: str | dict[str, str] | None = None,
        audio_seq_length: int = 188,
        image_seq_length: int = 256,
        **kwargs: Any,
    ) -> None:
        missing = [f"{name}_token" for name in NEEDED if getattr(tokenizer, f"{name}_token", None) is None]
        if missing:
            raise ValueError(
                f"the tokenizer knows no {', '.join(missing)}: give them as extra_special_tokens, or make one with "
                "`python -m minigpt4o.cli tokenizer --for minigpt4o`"
            )
        for name in ("image", "audio"):
            setattr(self, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
        self.image_token, self.boi_token, self.eoi_token = (getattr(tokenizer, f"{n}_token") for n in NEEDED[:3])
        self.audio_token, self.boa_token, self.eoa_token = (getattr(tokenizer, f"{n}_token") for n in NEEDED[3:])
        self.audio_seq_length, self.image_seq_length = audio_seq_length, image_seq_length
        self.full_image_sequence = f"\n\n{self.boi_token}{self.image_token * image_seq_length}{self.eoi_token}\n\n"
        self.full_audio_sequence = f"\n\n{self.boa_token}{self.audio_token * audio_seq_length}{self.eoa_token}\n\n"
        self._marks = _mark_pattern(
            image=(self.boi_token, self.image_token, self.eoi_token, image_seq_length),
            audio=(self.boa_token, self.audio_token, self.eoa_token, audio_seq_length),
        )
        self._turn = getattr(tokenizer, "sot_token", None) or "<start_of_turn>"
        chat_template = chat_template or getattr(tokenizer, "chat_template", None) or CHAT_TEMPLATE
        super().__init__(feature_extractor, image_processor, tokenizer, chat_template=chat_template, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        audio: Any = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        """`input_ids`, `attention_mask`, `token_type_ids` (1 at slots of pictures, 3 at slots of sounds), (B, T) each.

        With pictures `pixel_values` (pictures, 3, H, W), with sounds `input_features` (sounds, frames, mel bins) and
        `input_features_mask`, in the order of their marks over all rows. `images`: one, a list, a list for each text;
        `audio`: one clip or a list (paths, URLs, arrays at the feature extractor's rate, `{"array", "sampling_rate"}`).
        Without text there is a mark for each medium. `padding`, `max_length` and `truncation` are about the text; for
        sounds they go into `audio_kwargs`. Raises ValueError where marks and media disagree or a medium is unusable.
        """
        inputs = super().__call__(images=images, text=text, audio=audio, **kwargs)
        if "mm_token_type_ids" in inputs:
            inputs["token_type_ids"] = inputs.pop("mm_token_type_ids")
        return inputs

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Open files, bring everything into lists, and write the marks where no text was given."""
        if audio is not None:
            audio = open_clips(audio, self.feature_extractor.sampling_rate, *self._most_seconds(kwargs)) or None
        if images is not None:
            images = make_nested_list_of_images(self.image_processor.fetch_images(images))
            images = images if any(len(row) for row in images) else None
        text = [text] if isinstance(text, str) else text
        if text is None and images is not None:
            text = [" ".join([self.image_token] * len(row)) for row in images]
        elif text is None and audio is not None:
            text = [self.audio_token] * len(audio)
        return images, list(text) if isinstance(text, list | tuple) else text, videos, audio

    def _most_seconds(self, kwargs: Mapping[str, Any]) -> tuple[float, bool]:
        """How long a clip may be, and whether what is longer is cut off."""
        asked = kwargs.get("audio_kwargs") or {}
        samples = asked.get("max_length") or MAX_SAMPLES
        return samples / self.feature_extractor.sampling_rate, bool(asked.get("truncation", False))

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Raises ValueError where the marks in the text and the media disagree, with both numbers."""
        if videos is not None:
            raise ValueError(f"{type(self).__name__} takes no videos: give single pictures of it as images")
        if images is None and text is None and audio is None:
            raise ValueError(f"{type(self).__name__} got nothing: give text, images or audio")
        if "audios" in kwargs:
            raise ValueError("the keyword is audio, not audios")
        if not isinstance(text, list) or not all(isinstance(row, str) for row in text):
            raise ValueError(f"text must be a string or a list of strings, not {_type_of(text)}")
        rows = [[mark.lastgroup for mark in self._marks.finditer(row)] for row in text]
        given = None if images is None else [len(row) for row in images]
        if given is not None and len(given) == len(text) > 1:
            for number, (row, pictures) in enumerate(zip(rows, given, strict=True), 1):
                self._agree(f"text {number} of {len(rows)}", row.count("image"), pictures, self.image_token, "picture")
        where = "the text" if len(rows) == 1 else f"the {len(rows)} texts together"
        for kind, has in (("image", sum(given or [])), ("audio", len(audio or []))):
            name = "picture" if kind == "image" else "sound"
            self._agree(where, sum(row.count(kind) for row in rows), has, getattr(self, f"{kind}_token"), name)
        for number, row in enumerate(text, 1):
            self._one_sound_at_a_time(row, number)

    def _agree(self, where: str, marks: int, media: int, token: str, name: str) -> None:
        if marks != media:
            typed = (
                f"; a {token} that a user typed becomes ordinary text with "
                "apply_chat_template(..., sanitize_control_tokens=True)"
            )
            raise ValueError(
                f"{where}: {marks} {token} mark(s) but {media} {name}(s); the number of {token} tokens in the prompts "
                f"should be the same as the number of {name}s{typed if marks > media else ''}"
            )

    def _one_sound_at_a_time(self, text: str, number: int) -> None:
        for turn in text.split(self._turn)[1:]:
            last = None
            for mark in self._marks.finditer(turn):
                if mark.lastgroup != "audio":
                    continue
                if last is not None and not turn[last : mark.start()].strip():
                    raise ValueError(
                        f"text {number}: two sounds side by side in one turn; a turn asks about one sound. Sounds "
                        "given as examples need their answer behind them, best in turns of their own"
                    )
                last = mark.end()

    def get_text_with_replacements(
        self,
        text: list[str],
        images_replacements: list[str] | None = None,
        videos_replacements: list[str] | None = None,
        audio_replacements: list[str] | None = None,
    ) -> tuple[list[str], list[list[dict[str, Any]]]]:
        """The texts with every mark grown to its slots, and where each of them was and is now."""
        left = {"image": iter(images_replacements or []), "audio": iter(audio_replacements or [])}
        grown, offsets = [], []
        for row in text:
            parts, places, done, length = [], [], 0, 0
            for mark in self._marks.finditer(row):
                kind = str(mark.lastgroup)
                slots = next(left[kind])
                before = row[done : mark.start()]
                start = length + len(before)
                length, done = start + len(slots), mark.end()
                parts += [before, slots]
                place = {"type": kind, "span": mark.span(), "new_span": (start, length)}
                places.append({**place, "text": mark.group(), "replacement": slots})
            grown.append("".join([*parts, row[done:]]))
            offsets.append(places)
        return grown, offsets

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return self.full_image_sequence

    def replace_audio_token(self, audio_inputs: dict, audio_idx: int, **kwargs: Any) -> str:
        return self.full_audio_sequence

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; blocks of a turn are text, image and audio (`path`, `url`, or the medium itself).

        `sanitize_control_tokens=True` writes special tokens that stand in the chat's texts as ordinary text.
        """
        if kwargs.get("tokenize"):
            seconds = self._most_seconds(kwargs.get("processor_kwargs") or {})
            conversation = _with_clips(conversation, self.feature_extractor.sampling_rate, *seconds)
        return super().apply_chat_template(conversation, *args, **kwargs)

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, dict]:
        merged = super()._merge_kwargs(*args, **kwargs)
        asked = kwargs.get("audio_kwargs") or {}
        merged["audio_kwargs"] = {
            name: value for name, value in merged["audio_kwargs"].items() if name in asked or name not in TEXT_ONLY
        }
        return merged

    def _get_num_multimodal_tokens(
        self, image_sizes: list | None = None, audio_lengths: list | None = None, **kwargs: Any
    ) -> MultiModalData:
        """How many slots media of these sizes fill (asked by servers that plan ahead)."""
        counts: dict[str, list[int]] = {}
        if image_sizes is not None:
            counts["num_image_tokens"] = [self.image_seq_length] * len(image_sizes)
            counts["num_image_patches"] = [1] * len(image_sizes)
        if audio_lengths is not None:
            counts["num_audio_tokens"] = [self.audio_seq_length] * len(audio_lengths)
        return MultiModalData(**counts)

    @property
    def model_input_names(self) -> list[str]:
        parts = (self.tokenizer, self.image_processor, self.feature_extractor)
        text, pictures, sounds = (list(part.model_input_names) for part in parts)
        return [*text, "token_type_ids", *pictures, *sounds]


def _mark_pattern(**kinds: tuple[str, str, str, int]) -> re.Pattern[str]:
    """What stands for one medium: its slots already written, a frame around it, its start alone, a soft token."""
    groups = []
    for kind, (start, soft, end, slots) in kinds.items():
        a, b, c = (re.escape(token) for token in (start, soft, end))
        groups.append(rf"(?P<{kind}>\n\n{a}(?:{b}){{{slots}}}{c}\n\n|(?<![{TYPED}])(?:{a}(?:{b})*(?:{c})?|{b}))")
    return re.compile("|".join(groups))


def _with_clips(conversation: Any, rate: int, most_seconds: float, cut: bool) -> Any:
    """The same chat (or list of chats) with every sound opened; the caller's is left as it was."""
    if isinstance(conversation, list | tuple):
        return [_with_clips(one, rate, most_seconds, cut) for one in conversation]
    if not isinstance(conversation, Mapping) or not isinstance(conversation.get("content"), list | tuple):
        return conversation
    return {**conversation, "content": [_opened(block, rate, most_seconds, cut) for block in conversation["content"]]}


def _opened(block: Any, rate: int, most_seconds: float, cut: bool) -> Any:
    if not isinstance(block, Mapping) or block.get("type") != "audio":
        return block
    sources = [key for key in ("audio", "url", "path") if block.get(key) is not None]
    kept = {key: value for key, value in block.items() if key not in ("audio", "url", "path")}
    clips = [clip for key in sources for clip in open_clips(block[key], rate, most_seconds, cut)]
    if len(clips) > 1:
        raise ValueError(f"an audio block of a turn holds {len(clips)} clips: give each a block of its own")
    return {**kept, **({"audio": clips[0]} if clips else {})}


def _type_of(text: Any) -> str:
    if not isinstance(text, list):
        return type(text).__name__
    return f"a list that holds {next(type(row).__name__ for row in text if not isinstance(row, str))}"


__all__ = ["Minigpt4oProcessor"]
