"""GPT-2's architecture: tokens and positions, a stack of causal blocks, and scores for the token that comes next.

Source: Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from shared import nn
from shared.autograd import checkpoint, is_grad_enabled, no_grad
from shared.nn import functional as F
from shared.nn import init
from shared.ops import arange, cat, multinomial
from shared.optim import AdamW
from shared.tensor import Tensor


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT and what it is made of; the defaults are those of the smallest GPT-2.

    `vocab_size` is V, `block_size` the largest number of tokens it can look at, `n_embd` the width d of a token's
    vector, divisible by `n_head`; the feed-forward network is 4 · d wide. `positions` is "learned" or "sinusoidal".
    `bias` is for the linear layers and the norms of the blocks, and the last norm. `tie_weights`: the output layer
    uses the embedding's table. ValueError that names the field, for what no model can be made of.

    >>> GPTConfig(n_embd=100, n_head=8)
    Traceback (most recent call last):
    ...
    ValueError: GPTConfig: n_embd should be divisible by n_head, but got n_embd=100 and n_head=8
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.1
    bias: bool = True
    positions: str = "learned"
    tie_weights: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"GPTConfig: {name} should be an int of at least 1, but got {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"GPTConfig: n_embd should be divisible by n_head, but got n_embd={self.n_embd} and "
                f"n_head={self.n_head}"
            )
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig: dropout should be a number from 0 to below 1, but got {self.dropout!r}")
        for name in ("bias", "tie_weights"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"GPTConfig: {name} should be True or False, but got {getattr(self, name)!r}")
        if self.positions not in ("learned", "sinusoidal"):
            raise ValueError(f"GPTConfig: positions should be 'learned' or 'sinusoidal', but got {self.positions!r}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GPTConfig:
        """One of PRESETS, with some fields changed: `GPTConfig.preset("gpt2-medium", dropout=0.0)`."""
        if name not in PRESETS:
            raise ValueError(f"GPTConfig: there is no preset {name!r}; there are {', '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)

    def num_parameters(self) -> int:
        """How many numbers a GPT of this config learns, by formula; a table that is used twice counts once.

        Matrices and tables, the biases of the blocks' linear layers, scale and bias of two norms in each block and of
        the one at the end; where `bias` is False no bias, but the norms' scales. Sinusoidal positions are not learned.

        >>> GPTConfig.preset("gpt2").num_parameters()
        124439808
        """
        d, bias = self.n_embd, int(self.bias)
        attention = 4 * d * d + 4 * d * bias
        feed_forward = 8 * d * d + 5 * d * bias
        norm = d + d * bias
        tables = self.vocab_size * d * (1 if self.tie_weights else 2)
        tables += self.block_size * d if self.positions == "learned" else 0
        return tables + self.n_layer * (attention + feed_forward + 2 * norm) + norm


PRESETS = {
    "toy": GPTConfig(vocab_size=65, block_size=32, n_layer=2, n_head=4, n_embd=64, dropout=0.0),
    # nanoGPT's settings for characters of Shakespeare, on a laptop and on a GPU
    "cpu": GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False),
    "gpu": GPTConfig(vocab_size=65, block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2, bias=False),
    "gpt2": GPTConfig(),
    "gpt2-medium": GPTConfig(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": GPTConfig(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": GPTConfig(n_layer=48, n_head=25, n_embd=1600),
}


class GPTDecoderBlock(nn.EncoderBlock):
    """One layer of a GPT: causal self-attention, then a feed-forward network with GELU, each added to what came in.

    x (B, T, n_embd) → (B, T, n_embd). Pre-norm; what attention and network made is dropped out before it is added,
    attention weights too, but nothing inside the network. It has no attention to an encoder, so it is an
    `nn.EncoderBlock` whose tokens see themselves and those before. GELU is the tanh form, as GPT-2's was.

    >>> import shared
    >>> block = GPTDecoderBlock(GPTConfig.preset("toy"))
    >>> tuple(block(shared.ones(3, 5, 64)).shape)
    (3, 5, 64)
    """

    def __init__(self, config: GPTConfig, device: Any = None, dtype: Any = None):
        d, place = config.n_embd, {"bias": config.bias, "device": device, "dtype": dtype}
        super().__init__(d, config.n_head, 4 * d, config.dropout, nn.GELU("tanh"), norm_first=True, **place)
        self.feed_forward.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = True, cache: Any = None) -> Tensor:
        """As `nn.EncoderBlock`, but causal unless told otherwise: no token sees a later one, nor what `mask` hides.

        `mask` is True where a token may look, of a shape that broadcasts to (B, H, T, T); `cache` is an `nn.KVCache` of
        the tokens before, and then x are those that follow.
        """
        return nn.EncoderBlock.forward(self, x, mask, is_causal, cache)


class GPT(nn.Module):
    """ids (B, T), T ≤ block_size → logits (B, T, V): after each token, a score for each token that may come next.

    `token_embedding` and `positions` make vectors of the ids, `blocks` let each token take from those before it,
    `norm` normalises, and `lm_head`, a linear layer without bias, scores. With `tie_weights` the head's weight is the
    embedding's, one Parameter under two names. `gradient_checkpointing = True` trades time for memory in training:
    each block keeps only its input, and backward computes its inside once more; with caches it has no effect.

    >>> import shared
    >>> model = GPT(GPTConfig.preset("toy"))
    >>> tuple(model(shared.tensor([[1, 2, 3]])).shape), model.lm_head.weight is model.token_embedding.weight
    ((1, 3, 65), True)
    """

    def __init__(self, config: GPTConfig, device: Any = None, dtype: Any = None):
        super().__init__()
        if not isinstance(config, GPTConfig):
            raise TypeError(f"GPT: expected a GPTConfig, but got {type(config).__name__}")
        self.config = config
        self._assemble(device, dtype)
        self.gradient_checkpointing = False
        self.initialize_weights()

    def _assemble(self, device: Any = None, dtype: Any = None) -> None:
        """Makes the parts of the model that `self.config` describes, on `device` and in `dtype`, in this order.

        `token_embedding`, an Embedding of V vectors of n_embd numbers; `positions`, a LearnedPositionalEncoding, or the
        PositionalEncoding that is not learned, with the config's dropout and block_size places; `blocks`, a ModuleList
        of n_layer blocks; `norm`, a LayerNorm; `lm_head`, a Linear from n_embd to V without a bias. `config.bias` says
        whether the norm has a bias. With `config.tie_weights` the head's weight is the embedding's, the same Parameter.
        """
        config, place = self.config, {"device": device, "dtype": dtype}
        encoding = nn.LearnedPositionalEncoding if config.positions == "learned" else nn.PositionalEncoding
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd, **place)
        self.positions = encoding(config.n_embd, config.dropout, config.block_size, **place)
        self.blocks = nn.ModuleList([GPTDecoderBlock(config, **place) for _ in range(config.n_layer)])
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias, **place)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, **place)
        if config.tie_weights:
            self.lm_head.weight = self.token_embedding.weight

    def initialize_weights(self) -> None:
        """Draws all weights anew, as GPT-2 did: normal with standard deviation 0.02, biases 0, norms 1 and 0.

        The layers whose output is added to the residual path, each block's `out_proj` and `linear2`, get 0.02 / √(2L),
        L blocks: 2L sums of that size keep the path's variance, however deep. Every one of `named_parameters()` is set,
        whatever numbers it has: positions, if they are learned, and norms too. `init` has the functions (`normal_`,
        `zeros_`, `ones_`); numbers are written into the parameters as they are, none is replaced.
        """
        scaled = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                residual = name.endswith(("out_proj.weight", "linear2.weight"))
                init.normal_(parameter, std=scaled if residual else 0.02)
            elif name.endswith("bias"):
                init.zeros_(parameter)
            else:
                init.ones_(parameter)

    def forward(self, ids: Tensor, caches: list[nn.KVCache] | None = None) -> Tensor:
        """ids (B, T) → logits (B, T, V). RuntimeError that names the shape where ids have no two dimensions.

        `positions` knows its place by `start`, and drops out. It also raises the RuntimeError for a text that is longer
        than block_size: nothing is cut off here.
        `caches`, one for each block, hold what came before: ids are then the tokens that follow, at the positions after
        those, and T and what is cached must fit into block_size together (RuntimeError, by `positions` as well).
        With `gradient_checkpointing`, in training, where gradients are recorded and without caches, `checkpoint(block,
        x)` takes the place of block(x). With caches nothing is recomputed: a second pass would append once more.
        """
        if ids.ndim != 2:
            raise RuntimeError(f"GPT: expected ids (B, T), but got shape {tuple(ids.shape)}")
        x = self.positions(self.token_embedding(ids), start=len(caches[0]) if caches else 0)  # (B, T, d)
        for i, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training and is_grad_enabled() and not caches:
                x = checkpoint(block, x)
            else:
                x = block(x, cache=caches[i] if caches else None)
        return self.lm_head(self.norm(x))

    def extend(
        self, ids: Tensor, caches: list[nn.KVCache], padding: Tensor | None = None, logits_to_keep: int = 1
    ) -> Tensor:
        """ids (B, T), which follow what the caches hold → the logits of the last of them, (B, logits_to_keep, V).

        The caches, one for each block, then hold ids too: `block(x, mask, cache=cache)` adds them. Only the last tokens
        are scored: the head of GPT-2 costs as much as five and a half of its blocks.
        A text in a batch may be shorter than the others: then filler ids come first, and `padding`, int64 (B,), says
        how many, in this call and in all that follow it. Nobody looks at those: `mask`, (B, 1, 1, past + T), is True
        for tokens, and causality is added by the block. And a row's positions count from its first token, 0, so that
        they are no longer those of `positions(x, start=…)`: rows of `positions.table()`, (block_size, d), are
        added to x, by `F.embedding`, and `positions.dropout` is applied to the sum; a filler may have any position.
        RuntimeError where the caches and ids together are longer than block_size, fillers included, before anything is
        cached: `positions(x, start)` raises it, or `positions._check(x, start)`. What is made here lies on the
        device of ids. ValueError unless 1 ≤ logits_to_keep ≤ T.
        """
        if not 1 <= logits_to_keep <= ids.shape[1]:
            raise ValueError(f"GPT: expected 1 ≤ logits_to_keep ≤ {ids.shape[1]}, but got {logits_to_keep}")
        past, total = len(caches[0]), len(caches[0]) + ids.shape[1]
        x, mask = self.token_embedding(ids), None
        if padding is None:
            x = self.positions(x, start=past)
        else:
            self.positions._check(x, past)
            starts = padding.unsqueeze(1)  # (B, 1)
            places = (arange(past, total, device=ids.device) - starts).clamp(min=0)  # (B, T)
            x = self.positions.dropout(x + F.embedding(places, self.positions.table()))
            mask = (arange(total, device=ids.device) >= starts)[:, None, None]  # (B, 1, 1, past + T)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, mask, cache=cache)
        return self.lm_head(self.norm(x[:, -logits_to_keep:]))

    def num_parameters(self, embeddings: bool = True) -> int:
        """How many numbers the model learns, a shared table once; without the two embedding tables if asked.

        >>> GPT(GPTConfig.preset("toy")).num_parameters(embeddings=False)
        100096
        """
        tables = {id(p) for part in (self.token_embedding, self.positions) for p in part.parameters()}
        return sum(p.numel() for p in self.parameters() if embeddings or id(p) not in tables)

    def flops_per_token(self, length: int | None = None, training: bool = True) -> int:
        """Floating-point operations of the matrix products for one token of a text of `length` tokens.

        A multiplication and an addition for each weight of a matrix, the head's included, tied or not, and the tables'
        not; and in each block, for each of the `length` tokens, a product with its key and one with its value, as if
        none were masked. Any length is counted: block_size where it is None, more than block_size as any other, and
        with 0 there is nothing to attend to. The backward pass, with `training`, takes twice as many again.
        Source: Chowdhery et al., "PaLM", 2022, appendix B.
        """
        c = self.config
        length = c.block_size if length is None else length
        matrices = 12 * c.n_layer * c.n_embd**2 + c.vocab_size * c.n_embd
        forward = 2 * matrices + 4 * c.n_layer * length * c.n_embd
        return forward * (3 if training else 1)

    def decay_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Two groups for an optimizer: matrices and tables decay, biases and norms (one dimension) do not.

        Two dicts, {"params": list of Parameters, "weight_decay": float}, what decays first. Only parameters that
        require gradients are in them, each once.

        >>> model = GPT(GPTConfig.preset("toy"))
        >>> [(len(group["params"]), group["weight_decay"]) for group in model.decay_groups(0.1)]
        [(10, 0.1), (18, 0.0)]
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]

    def configure_optimizers(
        self, lr: float, weight_decay: float = 0.1, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8
    ) -> AdamW:
        """AdamW over `decay_groups`, without a group that nobody is in; the betas are those of GPT-3."""
        groups = [group for group in self.decay_groups(weight_decay) if group["params"]]
        return AdamW(groups, lr=lr, betas=betas, eps=eps)

    def crop_block_size(self, block_size: int) -> None:
        """Forgets the positions from `block_size` on, in place: a model that looks at less, and takes less.

        ValueError for more positions than there are. Optimizers made before hold the old table.
        """
        if not 1 <= block_size <= self.config.block_size:
            raise ValueError(f"GPT: block_size can shrink to 1 … {self.config.block_size}, but got {block_size}")
        with no_grad():
            if self.config.positions == "learned":
                kept = self.positions.weight[:block_size].clone()
                self.positions.weight = nn.Parameter(kept, requires_grad=self.positions.weight.requires_grad)
            else:
                self.positions.pe = self.positions.pe[:block_size].clone()
        self.positions.max_len = block_size
        self.config = replace(self.config, block_size=block_size)

    def generate(
        self,
        ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Any = None,
    ) -> Tensor:
        """ids (B, T) and `max_new_tokens` more, (B, T + new), each drawn from what the model expects next.

        Logits are divided by `temperature`; 0 takes the likeliest token instead of drawing. With `top_k` only the k
        likeliest can be drawn (`next_token`). The model sees the last block_size tokens. It is in eval mode meanwhile,
        and then as before; no gradient is recorded. ValueError for a temperature below 0 or a top_k below 1.

        >>> import shared
        >>> tuple(GPT(GPTConfig.preset("toy")).generate(shared.tensor([[1, 2, 3]]), 40).shape)
        (1, 43)
        """
        if temperature < 0 or (top_k is not None and top_k < 1):
            raise ValueError(f"GPT: expected temperature ≥ 0 and top_k ≥ 1, but got {temperature} and {top_k}")
        was_training = self.training
        self.eval()
        with no_grad():
            for _ in range(max_new_tokens):
                logits = self(ids[:, -self.config.block_size :])[:, -1]  # (B, V)
                ids = cat([ids, next_token(logits, temperature, top_k, generator)], 1)
        self.train(was_training)
        return ids

    @classmethod
    def from_pretrained(cls, name_or_folder: Any, **options: Any) -> GPT:
        """The model "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "owner/name", or the one in a folder.

        Options as for `shared.models.load_pretrained`: revision, cache_dir, offline, progress, dtype, mapped.
        """
        from shared.models.pretrained import load_pretrained

        return load_pretrained(name_or_folder, **options, model_class=cls)

    def save_pretrained(self, folder: Any, tokenizer: Any = None) -> None:
        """Writes the model, and the tokenizer where one is given: `shared.models.save_pretrained`."""
        from shared.models.pretrained import save_pretrained

        save_pretrained(self, folder, tokenizer)

    def extra_repr(self) -> str:
        return f"{self.num_parameters():,} parameters"


def next_token(logits: Tensor, temperature: float, top_k: int | None = None, generator: Any = None) -> Tensor:
    """One id for each row of logits (B, V), as int64 (B, 1): the likeliest at temperature 0, else a draw.

    Drawn with `generator` (the default one where there is none) from the softmax of logits / temperature; with `top_k`
    only scores at least as large as the row's k-th largest have a chance, all where k ≥ V. `logits` stay as they are.

    >>> import shared
    >>> next_token(shared.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]]), temperature=1.0, top_k=1).tolist()
    [[1], [0]]
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1)[0][:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    return multinomial(F.softmax(logits, dim=-1), 1, generator=generator)
