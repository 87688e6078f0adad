"""The overhead of one operation: `z = x + y` on 4 × 8 tensors that require gradients, and z.backward."""

import timing

TITLE = "`x + y` on 4×8 with gradients, forward and backward"
TARGET = 1.0


def build(library):
    t = library.tensor
    x, y, gradient = t.rand(4, 8), t.rand(4, 8), t.ones(4, 8)
    x.requires_grad_()
    y.requires_grad_()

    def run():
        x.grad = y.grad = None
        (x + y).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
