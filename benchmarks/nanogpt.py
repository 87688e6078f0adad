"""The same GPT in PyTorch, to measure ours against: nanoGPT's design, with PyTorch's fastest way for each part.

Queries, keys and values are one product, attention is `scaled_dot_product_attention` with is_causal, the head's weight
is the embedding's. GELU is the tanh form here as in shared/models/gpt.py, as GPT-2's was; nanoGPT's own is the other.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads, self.dropout = config.n_head, config.dropout
        self.in_proj = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.out_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.out_dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.in_proj(x).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.num_heads, -1).transpose(1, 2) for part in parts)
        p = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.out_dropout(self.out_proj(out.transpose(1, 2).contiguous().view(batch, length, width)))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, bias = config.n_embd, config.bias
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
        self.attention = Attention(config)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width, bias=bias),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * width, width, bias=bias),
            nn.Dropout(config.dropout),
        )

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*[Block(config) for _ in range(config.n_layer)])
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.token_embedding.weight
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.token_embedding(ids) + self.position_embedding(positions))
        return self.lm_head(self.norm(self.blocks(x)))
