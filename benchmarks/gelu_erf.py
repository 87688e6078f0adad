"""GELU by the normal distribution, of 4096 rows of 1024: forward and backward."""

import timing

TITLE = "GELU (erf) of 4096×1024, forward and backward"
TARGET = 1.0


def build(library):
    t, gelu = library.tensor, library.functional.gelu
    t.manual_seed(0)
    x, gradient = t.randn(4096, 1024).requires_grad_(), t.rand(4096, 1024)

    def run():
        x.grad = None
        gelu(x).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
