"""GPT-2 as Hugging Face's `transformers` names and shapes it, and as `shared.models.GPT` does: one table, both ways.

Source: `GPT2LMHeadModel` and `GPT2Config` of the package transformers, whose names are those of OpenAI's first files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from shared.models.gpt import GPTConfig
from shared.tensor import Tensor

# ---------------------------------------------------------------- weights


class Row(NamedTuple):
    """One tensor, or one for each block where the names have a #: our shape, and whether theirs is the other way round.

    In the shape V is vocab_size, T block_size and d n_embd.
    """

    theirs: str
    ours: str
    shape: str
    transposed: bool = False


PREFIX, HEAD, TABLE = "transformer.", "lm_head.weight", "wte.weight"
ROWS = (
    Row(TABLE, "token_embedding.weight", "V d"),
    Row("wpe.weight", "positions.weight", "T d"),
    Row("h.#.ln_1.weight", "blocks.#.norm1.weight", "d"),
    Row("h.#.ln_1.bias", "blocks.#.norm1.bias", "d"),
    Row("h.#.attn.c_attn.weight", "blocks.#.self_attention.in_proj.weight", "3d d", True),
    Row("h.#.attn.c_attn.bias", "blocks.#.self_attention.in_proj.bias", "3d"),
    Row("h.#.attn.c_proj.weight", "blocks.#.self_attention.out_proj.weight", "d d", True),
    Row("h.#.attn.c_proj.bias", "blocks.#.self_attention.out_proj.bias", "d"),
    Row("h.#.ln_2.weight", "blocks.#.norm2.weight", "d"),
    Row("h.#.ln_2.bias", "blocks.#.norm2.bias", "d"),
    Row("h.#.mlp.c_fc.weight", "blocks.#.feed_forward.linear1.weight", "4d d", True),
    Row("h.#.mlp.c_fc.bias", "blocks.#.feed_forward.linear1.bias", "4d"),
    Row("h.#.mlp.c_proj.weight", "blocks.#.feed_forward.linear2.weight", "d 4d", True),
    Row("h.#.mlp.c_proj.bias", "blocks.#.feed_forward.linear2.bias", "d"),
    Row("ln_f.weight", "norm.weight", "d"),
    Row("ln_f.bias", "norm.bias", "d"),
    Row(HEAD, HEAD, "V d"),
)
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # buffers of old files: the causal mask, and its −10,000


class Weight(NamedTuple):
    """One tensor of one model: as `Row`, with the block's number in the names and numbers in the shape."""

    theirs: str
    ours: str
    shape: tuple[int, ...]
    transposed: bool


def weights_of(config: GPTConfig, conv1d: bool = True) -> list[Weight]:
    """Every tensor of a GPT of this config, block after block; `transposed` nowhere unless `conv1d`.

    ValueError that names the field, for a config that has no counterpart there.

    >>> weights_of(GPTConfig.preset("toy"))[4]  # doctest: +NORMALIZE_WHITESPACE
    Weight(theirs='h.0.attn.c_attn.weight', ours='blocks.0.self_attention.in_proj.weight', shape=(192, 64),
    transposed=True)
    """
    _check_config(config, conv1d)
    d = config.n_embd
    sizes = {"V": config.vocab_size, "T": config.block_size, "d": d, "3d": 3 * d, "4d": 4 * d}
    found = []
    for inner, rows in groupby(ROWS, key=lambda row: "#" in row.ours):
        kept = [row for row in rows if config.bias or not row.ours.endswith(".bias")]
        for i in range(config.n_layer if inner else 1):
            for theirs, ours, shape, transposed in kept:
                names = (theirs.replace("#", str(i)), ours.replace("#", str(i)))
                found.append(Weight(*names, tuple([sizes[size] for size in shape.split()]), transposed and conv1d))
    return found


def from_hugging_face(state: Mapping[str, Tensor], config: GPTConfig, conv1d: bool = True) -> dict[str, Tensor]:
    """The state dict of a GPT of this config, made of that of a `GPT2LMHeadModel` or `GPT2Model`; nothing is copied.

    Names may begin with "transformer." or not; the mask buffers of old files are passed over. Four matrices of each
    block are (in, out) there and (out, in) here: they become transposed views, the others are the same Tensors. The
    files of minGPT and nanoGPT have these names too, but our order: `conv1d=False`. With `config.tie_weights` the head
    may be absent. RuntimeError that names every tensor that is missing, unexpected or of another shape.

    `weights_of(config, conv1d)` lists all tensors; `_without_prefix`, `_tie` (TABLE is their name for the embedding)
    and `_check`, further down, do what their names say.

    >>> import shared
    >>> model = shared.models.GPT(GPTConfig.preset("toy"))
    >>> theirs = to_hugging_face(model.state_dict(), model.config)
    >>> tuple(theirs["transformer.h.0.attn.c_attn.weight"].shape)
    (64, 192)
    >>> model.load_state_dict(from_hugging_face(theirs, model.config))
    <All keys matched successfully>
    """
    weights = weights_of(config, conv1d)
    named = _without_prefix(state)
    _tie(named, TABLE, config)
    _check(named, {w.theirs: w.shape[::-1] if w.transposed else w.shape for w in weights}, TABLE, config)
    return {w.ours: named[w.theirs].t() if w.transposed else named[w.theirs] for w in weights}


def to_hugging_face(state: Mapping[str, Tensor], config: GPTConfig, conv1d: bool = True) -> dict[str, Tensor]:
    """The way back: what `GPT2LMHeadModel.load_state_dict` takes (as torch tensors), names with "transformer.".

    The same tensors and the same helpers: transposed views and the same Tensors, so that there and back is the same
    memory. "lm_head.weight", which stands beside the "transformer.", has no prefix. The errors are those of
    `from_hugging_face`.
    """
    weights = weights_of(config, conv1d)
    named, table = dict(state), "token_embedding.weight"
    _tie(named, table, config)
    _check(named, {w.ours: w.shape for w in weights}, table, config)
    return {
        w.theirs if w.theirs == HEAD else PREFIX + w.theirs: named[w.ours].t() if w.transposed else named[w.ours]
        for w in weights
    }


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without "transformer.", and without the mask buffers; RuntimeError for a name that comes both ways.

    MASK knows the buffers by their names without "transformer.".
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = name.removeprefix(PREFIX)
        if short in named:
            raise RuntimeError(f"Hugging Face's GPT-2: {short} is there twice, with and without {PREFIX!r}")
        if not MASK.fullmatch(short):
            named[short] = tensor
    return named


def _tie(named: dict[str, Tensor], table: str, config: GPTConfig) -> None:
    """With tied weights a head that is absent is the table of embeddings."""
    if config.tie_weights and table in named:
        named.setdefault(HEAD, named[table])


def _check(named: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], table: str, config: GPTConfig) -> None:
    """RuntimeError that names each of `shapes` that is missing in `named` or other there, and what should not be."""
    problems = [f"missing: {name} {shape}" for name, shape in shapes.items() if name not in named]
    problems += [f"unexpected: {name} {tuple(x.shape)}" for name, x in named.items() if name not in shapes]
    for name, shape in shapes.items():
        if name in named and tuple(named[name].shape) != shape:
            problems.append(f"wrong shape: {name} {tuple(named[name].shape)}, expected {shape}")
    if not problems and config.tie_weights and not _same(named[HEAD], named[table]):
        problems.append(f"{HEAD} is not {table}, as tie_weights=True says; set tie_weights=False for two tables")
    if problems:
        raise RuntimeError("\n\t".join(["These are not the weights of a GPT of that config:", *problems]))


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or bool((a == b).all())


def _check_config(config: GPTConfig, conv1d: bool) -> None:
    """ValueError for the fields of a GPTConfig that Hugging Face's GPT-2 has no setting for."""
    if config.positions != "learned":
        raise ValueError(f"Hugging Face's GPT-2 has learned positions, but got positions={config.positions!r}")
    if conv1d and not config.bias:
        raise ValueError("Hugging Face's GPT-2 always has biases, but got bias=False")


# ---------------------------------------------------------------- config.json

FIELDS = {  # ours: theirs, another name that GPT2Config takes for it, what it is there where it is not given
    "vocab_size": ("vocab_size", None, 50257),
    "block_size": ("n_positions", "max_position_embeddings", 1024),
    "n_layer": ("n_layer", "num_hidden_layers", 12),
    "n_head": ("n_head", "num_attention_heads", 12),
    "n_embd": ("n_embd", "hidden_size", 768),
    "tie_weights": ("tie_word_embeddings", None, True),
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
DEMANDS: dict[str, Callable[[Any, GPTConfig], bool]] = {  # settings that change what a model computes
    "model_type": lambda value, config: value == "gpt2",
    "activation_function": lambda value, config: value in ("gelu_new", "gelu_pytorch_tanh"),  # two names for one
    "layer_norm_epsilon": lambda value, config: value == 1e-5,
    "n_inner": lambda value, config: value in (None, 4 * config.n_embd),
    "n_ctx": lambda value, config: value == config.block_size,
    "scale_attn_weights": lambda value, config: value is True,
    "scale_attn_by_inverse_layer_idx": lambda value, config: value is False,
    "add_cross_attention": lambda value, config: value is False,
}


def config_from_hugging_face(settings: Mapping[str, Any]) -> GPTConfig:
    """The GPTConfig of the dict in a config.json of Hugging Face's GPT-2; what it leaves out is as in GPT2Config.

    ValueError that names each field, with its value, that would make another model than `GPT` is. Settings that change
    no result (names of labels, how to sample, in which order attention multiplies) are passed over.

    >>> config_from_hugging_face({"model_type": "gpt2", "n_layer": 24, "n_head": 16, "n_embd": 1024}).n_layer
    24
    >>> config_from_hugging_face({"activation_function": "relu"})
    Traceback (most recent call last):
    ...
    ValueError: not a config that GPT can have: activation_function='relu'
    """
    found = {
        ours: settings.get(theirs, settings.get(other, default)) for ours, (theirs, other, default) in FIELDS.items()
    }
    rates = {name: settings.get(name, 0.1) for name in DROPOUTS}
    config = GPTConfig(**found, dropout=rates["resid_pdrop"])
    wrong = [name for name, fits in DEMANDS.items() if name in settings and not fits(settings[name], config)]
    problems = [f"{name}={settings[name]!r}" for name in wrong]
    if any(rate != config.dropout for rate in rates.values()):  # a GPT has one dropout
        problems += [f"{name}={rate!r}" for name, rate in rates.items()]
    if problems:
        raise ValueError(f"not a config that GPT can have: {', '.join(problems)}")
    return config


def config_to_hugging_face(config: GPTConfig) -> dict[str, Any]:
    """The dict of a config.json from which `transformers` builds the same model; ValueError as for `weights_of`."""
    _check_config(config, conv1d=True)
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        **{theirs: getattr(config, ours) for ours, (theirs, _, _) in FIELDS.items()},
        **{name: config.dropout for name in DROPOUTS},
    }
