"""What the training scripts beside this one share: the digits as images, LeNet-5, and a network with batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np

import shared
from shared import Tensor, nn
from shared.data import DataLoader, ImageDataset, TensorDataset
from shared.data import transforms as T

Split = dict[str, tuple[Tensor, Tensor]]


def digits(full: bool = False) -> dict[str, ImageDataset]:
    """{"train", "validation", "test"} of mnist-5k (scikit-learn's digits where it cannot be had), `full`: of MNIST.

    The validation digits are the end of the training set: 800 of mnist-5k's, 5,000 of MNIST's. They decide when to
    stop and which settings to take; the test digits decide nothing.
    """
    train, test = shared.data.load("mnist") if full else shared.data.load("mnist-5k", fallback=True)
    cut = len(train) - (5000 if full else len(train) // 5)
    images, labels = at_28(train.data.numpy()), train.targets.numpy()
    parts = {"train": (images[:cut], labels[:cut]), "validation": (images[cut:], labels[cut:])}
    parts["test"] = (at_28(test.data.numpy()), test.targets.numpy())
    return {name: ImageDataset(*part, classes=train.classes, name=name) for name, part in parts.items()}


def at_28(images: np.ndarray) -> np.ndarray:
    """Images (N, 28, 28) as they are; scikit-learn's digits (N, 8, 8) with each pixel 3 × 3 times, and a frame of 2."""
    if images.shape[1] == 28:
        return images
    return np.pad(images.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))


def statistics(dataset: ImageDataset) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, in 0…1."""
    pixels = dataset.images.astype(np.float32) / 255
    return float(pixels.mean()), float(pixels.std())


def augmentation() -> list[Any]:
    """Small rotations, shifts and changes of size: what leaves a digit the digit it was."""
    shift = 2 / 28
    return [T.RandomAffine(10, translate=(shift, shift), scale=(0.9, 1.1), interpolation="bilinear")]


def loader(dataset: ImageDataset, mean: float, std: float, batch_size: int = 64, augment: bool = False) -> DataLoader:
    """Shuffled, changed at random and standardised one by one: batches (B, 1, H, W) for training."""
    random = augmentation() if augment else []
    dataset.transform = T.Compose([*random, T.ToTensor(), T.Normalize((mean,), (std,))])
    return DataLoader(dataset, batch_size=batch_size, shuffle=True)


def tensors(dataset: ImageDataset, mean: float, std: float) -> tuple[Tensor, Tensor]:
    """All images (N, 1, H, W), standardised, and their labels (N,)."""
    return (dataset.data.float()[:, None] / 255 - mean) / std, dataset.targets


def fixed(dataset: ImageDataset, mean: float, std: float, batch_size: int = 250) -> DataLoader:
    """Batches for looking: in order, unchanged, standardised beforehand."""
    return DataLoader(TensorDataset(*tensors(dataset, mean, std)), batch_size=batch_size)


def lenet5() -> nn.Sequential:
    """LeNet-5 with relu and max pooling: 61,706 parameters for 28 × 28 pixels.

    LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.B, which pads the digits
    to 32 × 32, has weights in its pooling layers, joins the 16 maps to some of the 6 only, and ends in distances.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


def block(inputs: int, outputs: int, normalise: bool = True) -> list[nn.Module]:
    """Convolution 3 × 3, batch norm, relu, pooling: half the size. No bias where batch norm would remove it."""
    norm = [nn.BatchNorm2d(outputs)] if normalise else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not normalise), *norm, nn.ReLU(), nn.MaxPool2d(2)]


def cnn(channels: tuple[int, ...] = (24, 48, 96), dropout: float = 0.25, normalise: bool = True) -> nn.Sequential:
    """Three blocks, then one linear layer on the 3 × 3 maps that are left: 61,042 parameters for 28 × 28 pixels."""
    layers, inputs, size = [], 1, 28
    for outputs in channels:
        layers += block(inputs, outputs, normalise)
        inputs, size = outputs, size // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs * size**2, 10))


def parameters(model: nn.Module) -> int:
    """How many numbers the optimizer changes."""
    return sum(p.numel() for p in model.parameters())
