"""GPT-2's GELU of 4096 rows of 1024: forward and backward."""

import timing

TITLE = "GELU (tanh) of 4096×1024, forward and backward"
TARGET = 0.25


def build(library):
    t, gelu = library.tensor, library.functional.gelu
    t.manual_seed(0)
    x, gradient = t.randn(4096, 1024).requires_grad_(), t.rand(4096, 1024)

    def run():
        x.grad = None
        gelu(x, approximate="tanh").backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
