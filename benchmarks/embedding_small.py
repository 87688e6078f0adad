"""Looking up 8,192 tokens in a table of 10,000 rows of 512, forward and backward."""

import timing

TITLE = "embedding of 8,192 tokens, 10,000 × 512, forward and backward"
TARGET = 0.4


def build(library):
    t = library.tensor
    t.manual_seed(0)
    weight = t.rand(10_000, 512).requires_grad_()
    tokens, gradient = t.randint(0, 10_000, (32, 256)), t.rand(32, 256, 512)

    def run():
        weight.grad = None
        library.functional.embedding(tokens, weight).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
