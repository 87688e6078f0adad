"""A training step of nanoGPT's setting for a CPU: 4 layers, 4 heads, 128 wide, 12 windows of 64 of 65 characters.

Forward, loss, backward, gradients clipped to norm 1, AdamW, as in nanoGPT's loop; no dropout, no biases. PyTorch's side
is nanogpt.py, with the fused AdamW, which is PyTorch's fastest on a CPU too.
"""

from types import SimpleNamespace

import timing

TITLE = "GPT 4 layers, 4 heads, 128 wide, block 64, batch 12, train step"
TARGET = 0.65


def step(library, batch, **sizes):
    """One step on `batch` windows of block_size random tokens; `sizes` are the fields of a GPTConfig."""
    t, F = library.tensor, library.functional
    ids = t.randint(0, sizes["vocab_size"], (batch, sizes["block_size"] + 1))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].flatten()
    model = gpt(library, **sizes).to(ids.device)
    parameters = list(model.parameters())
    optimizer = library.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)

    def run():
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets)
        optimizer.zero_grad()
        loss.backward()
        library.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return run


def gpt(library, **sizes):
    """The library's GPT; PyTorch's process imports nothing of ours."""
    if library.name == "torch":
        from nanogpt import GPT

        return GPT(SimpleNamespace(**sizes))
    from shared.models.gpt import GPT, GPTConfig

    return GPT(GPTConfig(**sizes))


def build(library):
    return step(library, 12, vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False)


if __name__ == "__main__":
    timing.main(build)
