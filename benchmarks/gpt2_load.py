"""GPT-2's smallest size opened from a safetensors file that the system has in memory: time until it can be used."""

import gpt2_files
import timing

TITLE = "GPT-2 124M, loaded from a safetensors file of 498 MB"
TARGET = 1.0


def build(library):
    return lambda: gpt2_files.load(library)


if __name__ == "__main__":
    timing.main(build)
