"""GPT-2's smallest size writes 64 tokens after a prompt of 32, one text, float32, KV cache, always the likeliest.

PyTorch's side is transformers' `generate`. On two threads, by the wall clock: a token is bound by the memory.
"""

import gpt2_files
import timing

TITLE = "GPT-2 124M, batch 1, prompt 32, 64 new tokens, KV cache"
TARGET = 0.60
THREADS = 2


def build(library):
    return gpt2_files.continuing(library, 32, 64)


if __name__ == "__main__":
    timing.main(build)
