"""Causal self-attention of 12 sequences of 64 tokens, 4 heads of 32: forward and backward."""

import attention
import timing

TITLE = "causal attention, 12 × 4 heads, 64 tokens, 32 wide, forward and backward"
TARGET = 0.5


def build(library):
    return attention.attend(library, 12, 4, 64, 32)


if __name__ == "__main__":
    timing.main(build)
