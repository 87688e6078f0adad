"""One training step of an MLP 784-512-256-10 on a batch of 64, cross-entropy, Adam."""

import timing

TITLE = "MLP 784-512-256-10, batch 64, Adam, train step"
TARGET = 0.5


def build(library):
    import numpy as np  # not before timing.load has set the number of threads

    nn, t = library.nn, library.tensor
    numbers = np.random.default_rng(0)
    images = t.from_numpy(numbers.random((64, 784), dtype=np.float32))
    labels = t.from_numpy(numbers.integers(0, 10, 64))
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        optimizer.zero_grad()
        loss = library.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    timing.main(build)
