"""A training step of GPT-2's smallest size, 124 million parameters, on one window of 256 tokens, without dropout.

50,257 tokens, 12 layers, 12 heads, 768 wide; see gpt_cpu.py.
"""

import gpt_cpu
import timing

TITLE = "GPT-2 124M, 1 × 256 tokens, train step"
TARGET = 0.55


def build(library):
    sizes = {"vocab_size": 50257, "block_size": 256, "n_layer": 12, "n_head": 12, "n_embd": 768}
    return gpt_cpu.step(library, 1, **sizes, dropout=0.0, bias=True)


if __name__ == "__main__":
    timing.main(build)
