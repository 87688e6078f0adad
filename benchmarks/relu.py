"""ReLU behind the first convolution of a small network for MNIST, 64 images: forward and backward."""

import timing

TITLE = "ReLU of 64×32×28×28, forward and backward"
TARGET = 1.0


def build(library):
    t, relu = library.tensor, library.functional.relu
    t.manual_seed(0)
    x, gradient = t.randn(64, 32, 28, 28).requires_grad_(), t.rand(64, 32, 28, 28)

    def run():
        x.grad = None
        relu(x).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
