"""One step of AdamW over ten parameters of a million numbers each."""

import timing

TITLE = "AdamW step on 10 M parameters"
TARGET = 0.4


def build(library):
    t = library.tensor
    parameters = [t.rand(1000, 1000).requires_grad_() for _ in range(10)]
    for p in parameters:
        p.grad = t.rand(1000, 1000)
    return library.optim.AdamW(parameters, lr=1e-3).step


if __name__ == "__main__":
    timing.main(build)
