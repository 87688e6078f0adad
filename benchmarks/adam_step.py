"""One step of Adam over ten parameters of a million numbers each."""

import timing

TITLE = "Adam step on 10 M parameters"
TARGET = 0.4


def build(library):
    t = library.tensor
    parameters = [t.rand(1000, 1000).requires_grad_() for _ in range(10)]
    for p in parameters:
        p.grad = t.rand(1000, 1000)
    return library.optim.Adam(parameters, lr=1e-3).step


if __name__ == "__main__":
    timing.main(build)
