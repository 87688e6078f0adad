"""Layer norm of 64 sequences of 49 positions, 128 wide: forward and backward."""

import timing

TITLE = "layer_norm, 3136 rows of 128, forward and backward"
TARGET = 1.0


def build(library):
    t, normalize = library.tensor, library.functional.layer_norm
    x, weight, bias = (t.rand(*s).requires_grad_() for s in ((64, 49, 128), (128,), (128,)))
    gradient = t.rand(64, 49, 128)

    def run():
        x.grad = weight.grad = bias.grad = None
        normalize(x, (128,), weight, bias).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
