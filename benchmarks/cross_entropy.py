"""Cross-entropy of 1,024 tokens with GPT-2's vocabulary of 50,257: forward and backward."""

import timing

TITLE = "cross_entropy of 1024 rows of 50257 logits, forward and backward"
TARGET = 1.0


def build(library):
    t, loss = library.tensor, library.functional.cross_entropy
    logits, target = t.randn(1024, 50257).requires_grad_(), t.randint(0, 50257, (1024,))

    def run():
        logits.grad = None
        loss(logits, target).backward()

    return run


if __name__ == "__main__":
    timing.main(build)
