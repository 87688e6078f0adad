"""SiLU of the activations of 64 images, 49 places of 128: forward and backward."""

import timing

TITLE = "SiLU of 3136×128, forward and backward"
TARGET = 1.0


def build(library):
    t, silu = library.tensor, library.functional.silu
    t.manual_seed(0)
    x, gradient = t.randn(64 * 49, 128).requires_grad_(), t.rand(64 * 49, 128)

    def run():
        x.grad = None
        silu(x).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
