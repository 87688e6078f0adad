"""Models small enough to enumerate all they can write, and what is needed to compare texts with them."""

from types import SimpleNamespace

import numpy as np

import shared
from shared import nn
from shared.models import GPTConfig
from tests.models.samples import model_of

TINY = GPTConfig(vocab_size=13, block_size=32, n_layer=2, n_head=2, n_embd=8, dropout=0.0)


class Table(nn.Module):
    """A model whose next token depends on the two before it, which it finds in its cache, where it has written them.

    So a cache that holds something else than the text shows in the logits. `logits` (V + 1, V + 1, V), by the last
    token but one and the last; V stands for none.
    """

    def __init__(self, vocab_size=4, block_size=64, seed=0, spread=1.0):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocab_size, block_size=block_size)
        self.blocks = [None]
        size = (vocab_size + 1, vocab_size + 1, vocab_size)
        drawn = np.random.default_rng(seed).normal(0, spread, size)
        self.logits = nn.Parameter(shared.tensor(drawn, dtype=shared.float32))

    def extend(self, ids, caches, padding=None, logits_to_keep=1):
        numbers = ids.float()[:, None, :, None]  # (B, 1, T, 1)
        read = caches[0].update(numbers, numbers)[0].numpy()[:, 0, :, 0].astype(int)
        none = np.full((len(read), 2), self.config.vocab_size)
        read = np.concatenate([none, read], 1)
        logits = self.logits.detach().numpy()[read[:, :-1], read[:, 1:]]  # (B, 1 + all tokens, V)
        return shared.from_numpy(logits[:, -logits_to_keep:].copy())

    def scores(self, text):
        """The logits (V,) of what follows a text, from the table alone."""
        before = [self.config.vocab_size] * 2 + list(text)
        return self.logits.detach().numpy().astype(np.float64)[before[-2], before[-1]]

    def after(self, text):
        """The probabilities of what follows."""
        odds = np.exp(self.scores(text))
        return odds / odds.sum()


class Uncached:
    """ln p of what follows, from a pass over all that the model may look at: no cache, no rows of others."""

    def __init__(self, model, prompt):
        self.model, self.prompt = model, list(prompt)

    def visible(self, text):
        """Where the context is full, the text is read anew from half a context before its end on."""
        block, start = self.model.config.block_size, 0
        for length in range(len(self.prompt), len(text) + 1):
            if length - start > block:
                start = length - max(1, block // 2)
        return text[start:]

    def logits(self, new):
        text = self.visible([*self.prompt, *new])
        with shared.no_grad():
            return self.model(shared.tensor([text]))[0, -1].numpy()

    def __call__(self, new):
        logits = self.logits(new).astype(np.float64)
        return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def sharp(config=TINY, seed=0):
    """A GPT with opinions: it does not expect the same whatever it reads."""
    return model_of(config, seed, spread=0.6)
