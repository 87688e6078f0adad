"""The running example of Sprint 02: six 4×4 images, three ones and three sevens, sorted by label."""

from __future__ import annotations

import numpy as np

INK = {".": 0, "o": 153, "#": 255}  # 0, 0.6 and 1.0 once divided by 255
DRAWINGS = """
.#..  ..o.  ..#.  .###  ###.  oooo
.#..  ..o.  ..#.  ...#  ..#.  ...o
.#..  ..o.  .#..  ..#.  .#..  ...o
.#..  ..o.  .#..  ..#.  .#..  ..o.
"""
LABELS = np.array([0, 0, 0, 1, 1, 1])
NAMES = ("one", "seven")


def strokes() -> tuple[np.ndarray, np.ndarray]:
    """The images, (6, 4, 4) uint8, and their labels, (6,) int64.

    >>> images, labels = strokes()
    >>> images[3].tolist()
    [[0, 255, 255, 255], [0, 0, 0, 255], [0, 0, 255, 0], [0, 0, 255, 0]]
    """
    rows = [line.split() for line in DRAWINGS.split("\n") if line.strip()]  # rows[r][i]: row r of image i
    images = [[[INK[mark] for mark in rows[r][i]] for r in range(4)] for i in range(6)]
    return np.array(images, dtype=np.uint8), LABELS.copy()
