"""Looking up 8,192 tokens in a table of 50,257 rows of 384, GPT-2's vocabulary, forward and backward."""

import timing

TITLE = "embedding of 8,192 tokens, 50,257 × 384, forward and backward"
TARGET = 0.4


def look_up(library, rows, width):
    t = library.tensor
    t.manual_seed(0)
    weight = t.rand(rows, width).requires_grad_()
    tokens, gradient = t.randint(0, rows, (32, 256)), t.rand(32, 256, width)

    def run():
        weight.grad = None
        library.functional.embedding(tokens, weight).backward(gradient)

    return run


def build(library):
    return look_up(library, 50_257, 384)


if __name__ == "__main__":
    timing.main(build)
