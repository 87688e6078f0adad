"""A training step of nanoGPT's setting for characters on a GPU, here without dropout: 6 layers, 6 heads, 384 wide.

16 windows of 256 of 65 characters; see gpt_cpu.py.
"""

import gpt_cpu
import timing

TITLE = "GPT 6 layers, 6 heads, 384 wide, block 256, batch 16, train step"
TARGET = 0.60


def build(library):
    sizes = {"vocab_size": 65, "block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384}
    return gpt_cpu.step(library, 16, **sizes, dropout=0.0, bias=False)


if __name__ == "__main__":
    timing.main(build)
