"""Log-softmax of 4,096 rows of 1,024 numbers: forward and backward."""

import timing

TITLE = "log_softmax of 4096 rows of 1024, forward and backward"
TARGET = 1.0


def build(library):
    t, log_softmax = library.tensor, library.functional.log_softmax
    x, gradient = t.randn(4096, 1024).requires_grad_(), t.randn(4096, 1024)

    def run():
        x.grad = None
        log_softmax(x, -1).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
