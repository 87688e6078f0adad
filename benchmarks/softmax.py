"""Softmax over the last dimension of attention scores, 12 heads of 64 × 64 for 64 sequences: forward and backward."""

import timing

TITLE = "softmax of 64×12×64 rows of 64, forward and backward"
TARGET = 1.0


def build(library):
    t, softmax = library.tensor, library.functional.softmax
    x, gradient = t.randn(64, 12, 64, 64).requires_grad_(), t.randn(64, 12, 64, 64)

    def run():
        x.grad = None
        softmax(x, -1).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
