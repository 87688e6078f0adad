"""GPT-2's smallest size opened from a safetensors file that the system has in memory, and one token read with it.

The token counts, since a file that is mapped is read no earlier than its numbers are looked at. See gpt2_files.py.
"""

import gpt2_files
import timing

TITLE = "GPT-2 124M, loaded from a safetensors file of 548 MB, first token read"
TARGET = 1.0


def build(library):
    return lambda: gpt2_files.continuing(library, 1, 1)()


if __name__ == "__main__":
    timing.main(build)
