"""Sizes and token ids of Minigpt4o: one configuration for the text model, two for the towers, one that holds them."""

# No `from __future__ import annotations` here: `strict` checks field types, which it cannot do with strings.
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from minigpt4o.models.minigpt4o.presets import GLOBAL, LOCAL, PRESETS

VOCAB_SIZE = 200_000
MEDIA_ROWS = 128  # rows of each hard embedding table: one for pictures, one for sounds
SPECIAL_TOKENS = 8  # ids 0 ... 7, see TokenLayout
GLOBAL_EVERY = 5  # four local layers, then a global one
SPARSE_LAYERS, SPARSITY = 10, 0.95  # by default the first ten layers keep the top 5 % of their activations


class TokenLayout(NamedTuple):
    """Where everything stands in a vocabulary: the text first, the picture rows next, the sound rows last."""

    vocab_size: int
    media_rows: int
    pad_token_id: int
    eos_token_id: int
    bos_token_id: int
    unk_token_id: int
    start_of_turn_token_id: int
    end_of_turn_token_id: int
    boi_token_id: int
    boa_token_id: int
    vocab_size_per_layer_input: int
    vision_vocab_offset: int
    eoi_token_id: int
    image_token_id: int
    audio_vocab_offset: int
    eoa_token_id: int
    audio_token_id: int


def token_layout(vocab_size: int = VOCAB_SIZE, media_rows: int = MEDIA_ROWS) -> TokenLayout:
    """The ids that go with a vocabulary of this size.

    The sound rows end where the vocabulary ends: the model pads short sounds with the embedding of the last token.
    """
    least = SPECIAL_TOKENS + 2 * media_rows
    if media_rows < 2:
        raise ValueError(f"media_rows is {media_rows}: the end mark and the soft token of a medium need 2 rows")
    if vocab_size < least:
        raise ValueError(
            f"vocab_size is {vocab_size}: {SPECIAL_TOKENS} special tokens and 2 x {media_rows} media rows need {least}"
        )
    vision, audio = vocab_size - 2 * media_rows, vocab_size - media_rows
    media = (vision, vision, vision, vision + 1, audio, audio, audio + 1)
    return TokenLayout._make((vocab_size, media_rows, *range(SPECIAL_TOKENS), *media))


DEFAULT = token_layout()


def _per_layer(name: str, values: Sequence[Any], layers: int) -> list[Any]:
    """One value for each layer, or an error that names both numbers."""
    if len(values) != layers:
        raise ValueError(
            f"{name} holds {len(values)} values but num_hidden_layers is {layers}: give one for each layer"
        )
    return list(values)


@strict
class Minigpt4oTextConfig(PreTrainedConfig):
    """The text model; `intermediate_size` and `activation_sparsity_pattern` are one number or one for each layer."""

    model_type = "minigpt4o_text"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    base_model_tp_plan: ClassVar[dict[str, Any]] = {
        **{f"layers.*.self_attn.{name}_proj": "colwise" for name in "qkv"},
        **{f"layers.*.self_attn.{name}_norm": "replicated_with_grad_allreduce" for name in "qkv"},
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan: ClassVar[dict[str, Any]] = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }
    default_theta: ClassVar[dict[str, float]] = {"global": 1_000_000.0, "local": 10_000.0}

    vocab_size: int = VOCAB_SIZE
    hidden_size: int = 2048
    intermediate_size: int | list[int] = 16_384
    num_hidden_layers: int = 35
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 32_768
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = DEFAULT.pad_token_id
    eos_token_id: int | list[int] | None = DEFAULT.eos_token_id
    bos_token_id: int | None = DEFAULT.bos_token_id
    tie_word_embeddings: bool = True
    rope_parameters: dict | None = None  # layer type -> rope_type, rope_theta, ...
    attention_bias: bool = False
    attention_dropout: int | float | None = 0.0
    sliding_window: int = 512  # tokens a local layer sees, itself included
    layer_types: list[str] | None = None  # every fifth layer global, the others local
    final_logit_softcapping: float | None = 30.0
    vocab_size_per_layer_input: int = DEFAULT.vocab_size_per_layer_input
    hidden_size_per_layer_input: int = 256
    altup_active_idx: int = 0  # the stream that goes through the layer
    altup_coef_clip: float | None = 120.0
    altup_correct_scale: bool = True
    altup_num_inputs: int = 4  # streams
    num_kv_shared_layers: int = 15  # the last layers that read keys and values of an earlier one
    laurel_rank: int = 64
    activation_sparsity_pattern: float | list[float] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        layers = self.num_hidden_layers
        widths = self.intermediate_size
        widths = [widths] * layers if isinstance(widths, int) else widths
        self.intermediate_size = _per_layer("intermediate_size", widths, layers)
        if self.layer_types is None:
            self.layer_types = [LOCAL if (i + 1) % GLOBAL_EVERY else GLOBAL for i in range(layers)]
        self.layer_types = _per_layer("layer_types", self.layer_types, layers)
        sparsity = self.activation_sparsity_pattern
        if sparsity is None:
            sparse = SPARSE_LAYERS if layers > SPARSE_LAYERS else 0
            sparsity = [SPARSITY] * sparse + [0.0] * (layers - sparse)
        elif isinstance(sparsity, int | float):
            sparsity = [float(sparsity)] * layers
        self.activation_sparsity_pattern = _per_layer("activation_sparsity_pattern", sparsity, layers)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Called by `strict`: what no layer could be built from."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )

    def convert_rope_params_to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Lay the bases of the two kinds of layers under what was given, old names (`rope_theta`, ...) included."""
        parameters = self.rope_parameters = self.rope_parameters if self.rope_parameters is not None else {}
        bases = {
            GLOBAL: kwargs.pop("rope_theta", self.default_theta["global"]),
            LOCAL: kwargs.pop("rope_local_base_freq", self.default_theta["local"]),
        }
        scaling = kwargs.pop("rope_scaling", None)
        for kind, base in bases.items():
            if parameters.get(kind) is None:
                parameters[kind] = {"rope_type": "default"}
            if kind == GLOBAL and scaling is not None:
                parameters[kind].update(scaling)
            parameters[kind].setdefault("rope_theta", base)
        self.standardize_rope_params()
        return kwargs

    @property
    def kv_sharing_modes(self) -> list[str | None]:
        """For each layer: "reuse" reads keys and values of the last "store" layer of its type; None stands alone."""
        assert self.layer_types is not None
        layers, shared = self.num_hidden_layers, self.num_kv_shared_layers
        if shared == 0:
            return [None] * layers
        own = self.layer_types[: max(layers - shared, 0)]
        orphans = sorted(set(self.layer_types) - set(own))
        if orphans:
            raise ValueError(
                f"num_kv_shared_layers {shared} of num_hidden_layers {layers} leaves {len(own)} layer(s) that make "
                f"keys and values, none of them of type {', '.join(orphans)}: share fewer layers or change layer_types"
            )
        modes: list[str | None] = [None] * len(own) + ["reuse"] * (layers - len(own))
        for kind in set(own):
            modes[len(own) - 1 - own[::-1].index(kind)] = "store"
        return modes


@strict
class Minigpt4oAudioConfig(PreTrainedConfig):
    """The sound tower: sub-sampling convolutions ("sscp", pairs are time, frequency), then conformer layers ("conf")"""

    model_type = "minigpt4o_audio"

    vocab_size: int = MEDIA_ROWS
    vocab_offset: int = DEFAULT.audio_vocab_offset
    input_feat_size: int = 128  # mel bins
    hidden_size: int = 1536
    rms_norm_eps: float = 1e-6
    gradient_clipping: float = 10_000_000_000.0
    conf_attention_chunk_size: int = 12
    conf_attention_context_left: int = 13
    conf_attention_context_right: int = 0
    conf_attention_logit_cap: float = 50.0
    conf_num_attention_heads: int = 8
    conf_num_hidden_layers: int = 12
    conf_conv_kernel_size: int = 5
    conf_reduction_factor: int = 4
    conf_residual_weight: float = 0.5
    sscp_conv_channel_size: list[int] | tuple[int, int] = (128, 32)
    sscp_conv_group_norm_eps: float = 1e-3
    sscp_conv_kernel_size: list | tuple[tuple[int, int], tuple[int, int]] = ((3, 3), (3, 3))
    sscp_conv_stride_size: list | tuple[tuple[int, int], tuple[int, int]] = ((2, 2), (2, 2))


@strict
class Minigpt4oVisionConfig(PreTrainedConfig):
    """The picture tower: a network of timm, `timm.create_model(architecture, **model_args)`, no download."""

    model_type = "minigpt4o_vision"

    architecture: str = "mobilenetv5_300m_enc"
    initializer_range: float = 0.02
    do_pooling: bool = False
    model_args: dict | None = None
    hidden_size: int = 2048  # channels of its last feature map
    vocab_size: int = MEDIA_ROWS
    vocab_offset: int = DEFAULT.vision_vocab_offset
    rms_norm_eps: float = 1e-6


@strict
class Minigpt4oConfig(PreTrainedConfig):
    """Everything: the text model, both towers (each as a configuration or a dict), and the tokens that join them."""

    model_type = "minigpt4o"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "text_config": Minigpt4oTextConfig,
        "vision_config": Minigpt4oVisionConfig,
        "audio_config": Minigpt4oAudioConfig,
    }

    text_config: Minigpt4oTextConfig | dict[str, Any] | None = None
    vision_config: Minigpt4oVisionConfig | dict[str, Any] | None = None
    audio_config: Minigpt4oAudioConfig | dict[str, Any] | None = None
    audio_soft_tokens_per_image: int | None = 188  # soft tokens of one sound; the name is Gemma 3n's
    vision_soft_tokens_per_image: int | None = 256
    boi_token_id: int | None = DEFAULT.boi_token_id
    eoi_token_id: int | None = DEFAULT.eoi_token_id
    image_token_id: int | None = DEFAULT.image_token_id
    boa_token_id: int | None = DEFAULT.boa_token_id
    eoa_token_id: int | None = DEFAULT.eoa_token_id
    audio_token_id: int | None = DEFAULT.audio_token_id
    initializer_range: float | None = 0.02
    tie_word_embeddings: bool | None = True
    use_cache: bool = True

    @classmethod
    def preset(
        cls, name: str, vocab_size: int = VOCAB_SIZE, media_rows: int = MEDIA_ROWS, **changes: Any
    ) -> "Minigpt4oConfig":
        """A known size ("tiny", "e2b", "e4b") with the token ids of a vocabulary; `changes` go to the top level."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
        layout = token_layout(vocab_size, media_rows)
        parts: dict[str, Any] = {key: {**values} for key, values in PRESETS[name].items()}
        parts["text_config"] |= {
            "vocab_size": layout.vocab_size,
            "vocab_size_per_layer_input": layout.vocab_size_per_layer_input,
            # a chat ends a turn, a text ends: generation stops at either
            "eos_token_id": [layout.eos_token_id, layout.end_of_turn_token_id],
        }
        parts["vision_config"] |= {"vocab_size": media_rows, "vocab_offset": layout.vision_vocab_offset}
        parts["audio_config"] |= {"vocab_size": media_rows, "vocab_offset": layout.audio_vocab_offset}
        ids = {
            f"{key}_token_id": getattr(layout, f"{key}_token_id")
            for key in ("boi", "eoi", "image", "boa", "eoa", "audio")
        }
        return cls(**{**parts, **ids, **changes})


__all__ = ["Minigpt4oAudioConfig", "Minigpt4oConfig", "Minigpt4oTextConfig", "Minigpt4oVisionConfig"]
