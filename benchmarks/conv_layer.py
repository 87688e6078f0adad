"""A convolution of 32 to 64 channels, 3 × 3 with padding, on 64 images of 28 × 28: forward and backward."""

import timing

TITLE = "conv 32→64, 3×3, 64 images of 28×28, forward and backward"
TARGET = 1.1


def build(library):
    t, convolve = library.tensor, library.functional.conv2d
    x, weight, bias = (t.rand(*s).requires_grad_() for s in ((64, 32, 28, 28), (64, 32, 3, 3), (64,)))
    gradient = t.rand(64, 64, 28, 28)

    def run():
        x.grad = weight.grad = bias.grad = None
        convolve(x, weight, bias, padding=1).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
