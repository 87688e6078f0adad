"""Maxima of 2 × 2 windows of 64 images of 28 × 28 with 32 channels: forward and backward."""

import timing

TITLE = "max_pool2d 2×2, 64 images of 32×28×28, forward and backward"
TARGET = 1.0


def build(library):
    t, pool = library.tensor, library.functional.max_pool2d
    x, gradient = t.rand(64, 32, 28, 28).requires_grad_(), t.rand(64, 32, 14, 14)

    def run():
        x.grad = None
        pool(x, 2).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
