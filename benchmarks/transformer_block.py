"""A training step of one transformer layer, 384 wide with 6 heads, on 16 causal sequences of 256 tokens, with AdamW."""

import timing

TITLE = "transformer layer 384 wide, 6 heads, 16 × 256 tokens, step with AdamW"
TARGET = 0.60  # what a whole GPT of such layers is to reach


def step(library, batch, heads, length, width):
    """A pre-norm layer as in a GPT, with GELU and no dropout; the gradient of its output is random."""
    t, nn = library.tensor, library.nn
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    optimizer = library.optim.AdamW(layer.parameters(), lr=1e-4)
    x, gradient = t.rand(batch, length, width).requires_grad_(), t.rand(batch, length, width)
    mask = t.triu(t.full((length, length), float("-inf")), 1)

    def run():
        optimizer.zero_grad()
        x.grad = None
        layer(x, mask, is_causal=True).backward(gradient)
        optimizer.step()

    return run


def build(library):
    return step(library, 16, 6, 256, 384)


if __name__ == "__main__":
    timing.main(build)
