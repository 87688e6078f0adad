"""Layer norm of 4096 rows of 1024: forward and backward."""

import timing

TITLE = "layer_norm, 4096 rows of 1024, forward and backward"
TARGET = 1.0


def build(library):
    t, normalize = library.tensor, library.functional.layer_norm
    x, weight, bias = (t.rand(*s).requires_grad_() for s in ((4096, 1024), (1024,), (1024,)))
    gradient = t.rand(4096, 1024)

    def run():
        x.grad = weight.grad = bias.grad = None
        normalize(x, (1024,), weight, bias).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
