"""One training step of a small network for MNIST, two convolutions and two linear layers, batch 64, Adam."""

import timing

TITLE = "MNIST CNN (conv 32, conv 64, fc 128), batch 64, Adam, train step"
TARGET = 0.85


def build(library):
    import numpy as np  # not before timing.load has set the number of threads

    nn, t = library.nn, library.tensor
    numbers = np.random.default_rng(0)
    images = t.from_numpy(numbers.random((64, 1, 28, 28), dtype=np.float32))
    labels = t.from_numpy(numbers.integers(0, 10, 64))
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        optimizer.zero_grad()
        loss = library.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    timing.main(build)
