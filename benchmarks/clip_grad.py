"""The norm of ten gradients of a million numbers each, and their scaling to a norm of 1."""

import timing

TITLE = "clip_grad_norm_ on 10 M gradients"
TARGET = 1.0


def build(library):
    t = library.tensor
    parameters = [t.rand(1000, 1000).requires_grad_() for _ in range(10)]
    for p in parameters:
        p.grad = t.rand(1000, 1000)
    return lambda: library.nn.utils.clip_grad_norm_(parameters, 1.0)


if __name__ == "__main__":
    timing.main(build)
