"""Batch norm of 64 images of 28 × 28 with 32 channels in training: forward and backward."""

import timing

TITLE = "batch_norm, 64 images of 32×28×28, forward and backward"
TARGET = 1.0


def build(library):
    t = library.tensor
    layer = library.nn.BatchNorm2d(32)
    x, gradient = t.rand(64, 32, 28, 28).requires_grad_(), t.rand(64, 32, 28, 28)

    def run():
        x.grad = layer.weight.grad = layer.bias.grad = None
        layer(x).backward(gradient)

    return run


if __name__ == "__main__":
    timing.main(build)
