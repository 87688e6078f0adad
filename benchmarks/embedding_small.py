"""Looking up 8,192 tokens in a table of 10,000 rows of 512, forward and backward."""

import embedding_backward
import timing

TITLE = "embedding of 8,192 tokens, 10,000 × 512, forward and backward"
TARGET = 0.4


def build(library):
    return embedding_backward.look_up(library, 10_000, 512)


if __name__ == "__main__":
    timing.main(build)
