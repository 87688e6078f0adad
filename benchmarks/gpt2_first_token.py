"""The first token after a prompt of 512: GPT-2's smallest size reads all of it at once. See gpt2_generate.py."""

import gpt2_files
import timing

TITLE = "GPT-2 124M, batch 1, first token after a prompt of 512"
TARGET = 1.0
THREADS = 2


def build(library):
    return gpt2_files.continuing(library, 512, 1)


if __name__ == "__main__":
    timing.main(build)
