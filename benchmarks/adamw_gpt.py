"""One step of AdamW over the parameters of a small GPT: 4 layers, 128 wide, 52 tensors of 128 to 65,536 numbers."""

import timing

TITLE = "AdamW step on 52 tensors of a GPT, 4 layers of 128"
TARGET = 0.4


def shapes(width=128, layers=4, block=64, vocabulary=65):
    """The parameters of embeddings, blocks (norm, attention, norm, two layers) and the last norm."""
    layer = [(width,)] * 2 + [(3 * width, width), (3 * width,), (width, width), (width,)]
    layer += [(width,)] * 2 + [(4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [(vocabulary, width), (block, width), *layer * layers, (width,), (width,)]


def build(library):
    t = library.tensor
    parameters = [t.rand(*shape).requires_grad_() for shape in shapes()]
    for p in parameters:
        p.grad = t.rand(*p.shape)
    return library.optim.AdamW(parameters, lr=1e-3).step


if __name__ == "__main__":
    timing.main(build)
