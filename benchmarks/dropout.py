"""Dropout of 4096 rows of 1024, one element in ten: forward and backward."""

import timing

TITLE = "Dropout 0.1 of 4096×1024, forward and backward"
TARGET = 1.0


def build(library):
    t, dropout = library.tensor, library.functional.dropout
    t.manual_seed(0)
    x, gradient = t.randn(4096, 1024).requires_grad_(), t.rand(4096, 1024)

    def run():
        x.grad = None
        dropout(x, 0.1).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
