"""The overhead per operation in a longer graph: 100 additions of 4 × 8 tensors, then one backward through them."""

import timing

TITLE = "100 chained `x + y` on 4×8, forward and backward"
TARGET = 1.0


def build(library):
    t = library.tensor
    x, y, gradient = t.rand(4, 8), t.rand(4, 8), t.ones(4, 8)
    x.requires_grad_()
    y.requires_grad_()

    def run():
        x.grad = y.grad = None
        z = x
        for _ in range(100):
            z = z + y
        z.backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
