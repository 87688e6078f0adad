"""A training step of one transformer layer, 128 wide with 4 heads, on 12 causal sequences of 64 tokens, with AdamW."""

import timing
import transformer_block

TITLE = "transformer layer 128 wide, 4 heads, 12 × 64 tokens, step with AdamW"
TARGET = 0.65  # what a whole GPT of such layers is to reach


def build(library):
    return transformer_block.step(library, 12, 4, 64, 128)


if __name__ == "__main__":
    timing.main(build)
