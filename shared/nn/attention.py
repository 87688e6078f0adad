"""Multi-head attention: the course's own, and PyTorch's interface to the same computation."""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.autograd import is_grad_enabled
from shared.nn import functional as F
from shared.nn import init
from shared.nn.linear import Linear
from shared.nn.masks import may_attend
from shared.nn.module import Module
from shared.nn.parameter import Parameter
from shared.ops import attention as ops
from shared.ops.creation import empty, zeros
from shared.ops.join import cat
from shared.tensor import Tensor


class KVCache:
    """Keys and values of what was attended to so far, for one layer: generation computes each token's only once.

    `MultiHeadAttention` calls `update`; any object that has it can take its place. `keys` and `values` are those of all
    tokens so far, (B, H, len(cache), E), or None. `max_len`, if it is known, is the number of tokens that room is made
    for at once. Without it the room doubles when it is full: when n tokens have come one by one, old ones have been
    copied to a new place fewer than 2n times in all (in pieces of any sizes: fewer than 3n).

    >>> import shared
    >>> cache = KVCache()
    >>> keys, values = cache.update(shared.ones(1, 2, 3, 4), shared.ones(1, 2, 3, 4))
    >>> keys, values = cache.update(shared.zeros(1, 2, 1, 4), shared.zeros(1, 2, 1, 4))
    >>> tuple(keys.shape), keys[0, 0, :, 0].tolist()
    ((1, 2, 4, 4), [1.0, 1.0, 1.0, 0.0])
    """

    def __init__(self, max_len: int | None = None) -> None:
        self.max_len = max_len
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self._rooms: list[Any] = []  # arrays (B, H, room, E) that begin with the keys, and with the values

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, H, new, E) of new tokens; returns those of all, (B, H, past + new, E).

        What is returned is kept as `self.keys` and `self.values`. Where gradients are asked for, by old or new ones
        while they are enabled, old and new are concatenated, and what room there was is given up; else `_written` puts
        the new ones behind the old. RuntimeError, by `_check`, for another batch or other heads than before, or for
        more than `max_len` tokens: then nothing has changed.
        """
        past = (self.keys, self.values)
        self._check(keys, values)
        if is_grad_enabled() and any(x is not None and x.requires_grad for x in (keys, values, *past)):
            self._rooms = []
            pairs = zip(past, (keys, values), strict=True)
            self.keys, self.values = (new if old is None else cat([old, new], 2) for old, new in pairs)
        else:
            self.keys, self.values = self._written(keys, values)
        return self.keys, self.values

    def _written(self, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of all tokens, Tensors on the beginnings of `self._rooms`: those of the keys and the values.

        Only the new ones are written, behind the len(self) old ones. Where there are no rooms yet, or they are too
        small, `_room` makes new ones, which begin with the old tokens.
        """
        past, total = len(self), len(self) + keys.shape[2]
        if not self._rooms or self._rooms[0].shape[2] < total:
            self._rooms = [self._room(old, new, total) for old, new in ((self.keys, keys), (self.values, values))]
        for room, new in zip(self._rooms, (keys, values), strict=True):
            room[:, :, past:total] = new.array
        return tuple([Tensor(room[:, :, :total]) for room in self._rooms])

    def _room(self, old: Tensor | None, new: Tensor, total: int) -> Any:
        """A new array (B, H, room, E) like `new`, with the old tokens in front and the rest left as it comes.

        The room is `max_len` where that is given, else `total` tokens or twice those of the cache, whichever is more.
        """
        batch, heads, _, width = new.shape
        room = xp(new.array).empty((batch, heads, self.max_len or max(total, 2 * len(self)), width), new.array.dtype)
        if old is not None:
            room[:, :, : old.shape[2]] = old.array
        return room

    def _check(self, keys: Tensor, values: Tensor) -> None:
        for name, old, new in (("keys", self.keys, keys), ("values", self.values, values)):
            sizes = tuple(new.shape)
            if len(sizes) != 4 or (old is not None and sizes[:2] + sizes[3:] != tuple(old.shape[:2] + old.shape[3:])):
                expected = "(B, H, new, E)" if old is None else f"to be added to {tuple(old.shape)} along dimension 2"
                raise RuntimeError(f"KVCache: expected {name} {expected}, but got {sizes}")
        if keys.shape[2] != values.shape[2]:
            raise RuntimeError(f"KVCache: expected a value for each key, but got {keys.shape[2]} and {values.shape[2]}")
        if self.max_len is not None and len(self) + keys.shape[2] > self.max_len:
            raise RuntimeError(
                f"KVCache: {len(self)} tokens and {keys.shape[2]} new ones are more than max_len={self.max_len}"
            )

    def __len__(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]


class _Attention(Module):
    """What the two modules share: heads, and attention over them."""

    num_heads: int
    dropout: float

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, L, H · E) → (B, H, L, E): the numbers of a token, cut into H consecutive pieces, H = self.num_heads.

        The first E numbers of each token go to head 0. Copies nothing: the result is a view.
        """
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)

    def combine_heads(self, x: Tensor) -> Tensor:
        """(B, H, L, E) → (B, L, H · E): the way back, each token's pieces side by side, head 0 first."""
        batch, heads, length, width = x.shape
        return x.transpose(1, 2).reshape(batch, length, heads * width)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, diagonal: int | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Of q (B, H, L, E), k and v (B, H, S, E): the result (B, L, H · E), and the weights (B, H, L, S) or None.

        Every head attends by itself, with the scale of its own width E, and the heads' results are combined. `mask`
        broadcasts to (B, H, L, S); with a `diagonal` query r sees, besides, no key after r + diagonal. In training
        weights are dropped with probability `self.dropout`, in evaluation never. Without `need_weights` it is one
        operation (`ops.attention`), which never holds all weights; `ops.attention_with_weights` returns them.
        """
        p = self.dropout if self.training else 0.0
        if need_weights:
            out, weights = ops.attention_with_weights(q, k, v, mask, diagonal, ops.default_scale(q), p)
            return self.combine_heads(out), weights
        return self.combine_heads(ops.attention(q, k, v, mask, diagonal, None, p)), None

    def attend_packed(
        self, packed: Tensor, mask: Tensor | None, diagonal: int | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The same of queries, keys and values (B, L, 3 · H · E) as one projection returns them, side by side."""
        if need_weights or (mask is not None and mask.requires_grad):
            q, k, v = (self.split_heads(x) for x in packed.chunk(3, 2))
            return self.attend(q, k, v, mask, diagonal, need_weights)
        p = self.dropout if self.training else 0.0
        return ops.packed_attention(packed, self.num_heads, mask, diagonal, None, p), None


def _check_heads(name: str, width: int, num_heads: int) -> None:
    if width <= 0 or num_heads <= 0:
        raise ValueError(f"{name}: expected a width and num_heads greater than 0, but got {width} and {num_heads}")
    if width % num_heads:  # PyTorch's kind of error
        raise AssertionError(f"{name}: the width ({width}) must be divisible by num_heads ({num_heads})")


class MultiHeadAttention(_Attention):
    """Each query takes from each value by the likeness to its key, in `num_heads` subspaces of d_model / num_heads.

    query (B, L, d_model) → (B, L, d_model). Without `key`, keys and values are made of the query's tokens
    (self-attention); with key (B, S, d_model), and perhaps value, of those (cross-attention). `mask` is boolean, True
    where a query may attend to a key, or is added to the scores; its shape is (L, S), (B, L, S), or broadcasts to
    (B, H, L, S). `is_causal` lets a token see itself and those before. With `need_weights` the result is (out, weights
    (B, H, L, S)). A `cache` (see `KVCache`) gets the keys and values of the new tokens and gives those of all.
    `in_proj` makes queries, keys and values in one product: its weight has theirs one below the other.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.2.2.

    >>> import shared
    >>> from shared import nn
    >>> attend = nn.MultiHeadAttention(d_model=8, num_heads=2)
    >>> out, weights = attend(shared.ones(1, 3, 8), is_causal=True, need_weights=True)
    >>> tuple(out.shape), weights[0, 0].tolist()[0]
    ((1, 3, 8), [1.0, 0.0, 0.0])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        _check_heads("MultiHeadAttention", d_model, num_heads)
        self.d_model, self.num_heads, self.dropout = d_model, num_heads, dropout
        self.in_proj = Linear(d_model, 3 * d_model, bias, device, dtype)
        self.out_proj = Linear(d_model, d_model, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier's uniform distribution for in_proj, as PyTorch has it; biases 0."""
        init.xavier_uniform_(self.in_proj.weight)
        for layer in (self.in_proj, self.out_proj):
            if layer.bias is not None:
                init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
        cache: Any = None,
    ) -> Any:
        """As the class says. RuntimeError, whose text names the query's shape, unless that is (B, L, d_model).

        `project`, `attend` and `out_proj`, one after the other. A mask (B, L, S) is meant for all heads. With a cache,
        which takes new keys and values after projection, the last new key belongs to the last query: query r of L
        sees the keys up to r + (all keys − L), if `is_causal`; without one those up to r. Where keys and values are
        the query's own and nothing is cached, `attend_packed` of in_proj's result is the faster way to the same.
        """
        if query.ndim != 3 or query.shape[2] != self.d_model:
            raise RuntimeError(
                f"MultiHeadAttention: expected a query (B, L, {self.d_model}), but got {tuple(query.shape)}"
            )
        if mask is not None and mask.ndim == 3:
            mask = mask.unsqueeze(1)
        diagonal = 0 if is_causal else None
        if key is None and cache is None:
            out, weights = self.attend_packed(self.in_proj(query), mask, diagonal, need_weights)
        else:
            q, k, v = self.project(query, key, value)
            if cache is not None:
                k, v = cache.update(k, v)
                diagonal = k.shape[2] - q.shape[2] if is_causal else None
            out, weights = self.attend(q, k, v, mask, diagonal, need_weights)
        out = self.out_proj(out)
        return (out, weights) if need_weights else out

    def project(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> tuple[Tensor, ...]:
        """Queries (B, H, L, E) of query (B, L, d_model), keys and values (B, H, S, E) of key and value, heads split.

        The rows of in_proj's weight and bias make the queries with their first third, keys with the second and values
        with the last; bias may be None. Without `key` all three are made of the query; a value is made of the key where
        only that is given.
        """
        if key is None:
            made = self.in_proj(query).chunk(3, 2)
        else:
            weights = self.in_proj.weight.chunk(3)
            biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
            given = (query, key, key if value is None else value)
            made = tuple([F.linear(x, w, b) for x, w, b in zip(given, weights, biases, strict=True)])
        return tuple([self.split_heads(x) for x in made])

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, num_heads={self.num_heads}, dropout={self.dropout}"


class MultiheadAttention(_Attention):
    """PyTorch's multi-head attention: its arguments, its masks (True: hide), its names in the state dict.

    query (L, N, E), key (S, N, kdim), value (S, N, vdim), or (N, L, E) … with `batch_first`, or without N → (out, of
    the query's shape, and weights or None). `attn_mask` is (L, S) or (N · num_heads, L, S), `key_padding_mask` (N, S):
    boolean, True where nothing is to be seen, or added to the scores. The weights are (N, L, S), averaged over the
    heads, or (N, num_heads, L, S); `need_weights=False` is faster. `is_causal` is a hint that `attn_mask` is causal.
    `add_bias_kv` adds a learned key and value, `add_zero_attn` one of zeros. A query that may see no key gets weights
    of 0, where PyTorch has NaN if it returns weights.

    >>> import shared
    >>> from shared import nn
    >>> attend, x = nn.MultiheadAttention(8, 2, batch_first=True), shared.ones(1, 3, 8)
    >>> hidden = shared.tensor([[False, False, True]])
    >>> attend(x, x, x, key_padding_mask=hidden)[1][0, 0].tolist()
    [0.5, 0.5, 0.0]
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        _check_heads("MultiheadAttention", embed_dim, num_heads)
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn

        def parameter(*sizes: int) -> Parameter:
            return Parameter(empty(*sizes, device=device, dtype=dtype))

        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim
        sizes = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        together = parameter(3 * embed_dim, embed_dim) if self._qkv_same_embed_dim else None
        for name, size in sizes.items():
            apart = None if self._qkv_same_embed_dim else parameter(embed_dim, size)
            self.register_parameter(f"{name}_proj_weight", apart)
        self.register_parameter("in_proj_weight", together)
        self.register_parameter("in_proj_bias", parameter(3 * embed_dim) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype)
        self.register_parameter("bias_k", parameter(1, 1, embed_dim) if add_bias_kv else None)
        self.register_parameter("bias_v", parameter(1, 1, embed_dim) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        self._check(query, key, value, attn_mask, key_padding_mask)
        if is_causal and attn_mask is None:
            raise RuntimeError(
                "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                "`generate_square_subsequent_mask` to create this mask."
            )
        hinted = is_causal and key_padding_mask is None and not need_weights
        batched = query.ndim == 3
        together = query is key and key is value and self._qkv_same_embed_dim and self.bias_k is None
        inputs = [self._batch_first(x, batched) for x in (query, key, value)]
        n, queries, keys = inputs[0].shape[0], inputs[0].shape[1], inputs[1].shape[1]
        mask = None if hinted else self._merged(attn_mask, key_padding_mask, n, queries, keys)
        diagonal = 0 if hinted else None
        if together and not self.add_zero_attn:
            packed = F.linear(inputs[0], self.in_proj_weight, self.in_proj_bias)
            out, weights = self.attend_packed(packed, mask, diagonal, need_weights)
        else:
            q, k, v = self._project(*inputs)
            k, v, mask = self._with_more_keys(k, v, mask)
            q, k, v = (self.split_heads(x) for x in (q, k, v))
            out, weights = self.attend(q, k, v, mask, diagonal, need_weights)
        out = self.out_proj(out)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any, key_padding_mask: Any) -> None:
        sizes = [tuple(x.shape) for x in (query, key, value)]
        dims = {len(s) for s in sizes}
        if dims not in ({2}, {3}):
            raise AssertionError(
                f"MultiheadAttention: expected all inputs with 2 or all with 3 dimensions, but got {sizes}"
            )
        widths = (self.embed_dim, self.kdim, self.vdim)
        if tuple(s[-1] for s in sizes) != widths or sizes[1][:-1] != sizes[2][:-1]:
            raise AssertionError(
                f"MultiheadAttention: was expecting embedding dimensions of {widths}, and a value for each key, "
                f"but got query {sizes[0]}, key {sizes[1]} and value {sizes[2]}"
            )
        batch = 0 if self.batch_first else 1
        if dims == {3} and sizes[0][batch] != sizes[1][batch]:
            raise AssertionError(f"MultiheadAttention: the batches of query {sizes[0]} and key {sizes[1]} differ")
        for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
            if mask is not None and not (mask.array.dtype == bool or mask.is_floating_point()):
                raise AssertionError(f"only bool and floating types of {name} are supported")

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        """(N, L, width), whichever way x came."""
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (N, L or S, embed_dim)."""
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        given = (query, key, value)
        return tuple([F.linear(x, w, b) for x, w, b in zip(given, weights, biases, strict=True)])

    def _merged(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, n: int, queries: int, keys: int
    ) -> Tensor | None:
        """One mask that broadcasts to (N, heads, L, S), True: may attend, or added: PyTorch's convention ends here."""
        masks = []
        if attn_mask is not None:
            expected = (queries, keys) if attn_mask.ndim == 2 else (n * self.num_heads, queries, keys)
            if tuple(attn_mask.shape) != expected:
                raise RuntimeError(
                    f"The shape of the {attn_mask.ndim}D attn_mask is {tuple(attn_mask.shape)}, "
                    f"but should be {expected}."
                )
            masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(n, self.num_heads, queries, keys))
        if key_padding_mask is not None:
            found = tuple(key_padding_mask.shape)
            if found != (n, keys) and (n, found) != (1, (keys,)):  # (N, S), or (S,) for one sequence
                raise AssertionError(
                    f"key_padding_mask of shape {found} does not have one element for each of {n} × {keys} keys"
                )
            masks.append(key_padding_mask.reshape(n, 1, 1, keys))
        return may_attend(*masks)

    def _with_more_keys(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values, and the mask that lets them through, with those of bias_k, bias_v and zeros at the end."""
        more = []
        if self.bias_k is not None and self.bias_v is not None:
            more.append([bias.expand(len(k), 1, self.embed_dim) for bias in (self.bias_k, self.bias_v)])
        if self.add_zero_attn:
            more.append([zeros(len(k), 1, self.embed_dim, device=k.device, dtype=k.dtype)] * 2)
        for key, value in more:
            k, v = cat([k, key], 1), cat([v, value], 1)
        if mask is not None and more:
            mask = F.pad(mask, (0, len(more)), value=mask.array.dtype == bool)
        return k, v, mask
