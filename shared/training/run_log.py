"""What happened in a training, update by update: in memory, and in a file that a resumed training goes on with."""

from __future__ import annotations

import json
import os
from typing import Any

_COLOURS = {"loss": "#BBBBBB", "train_loss": "#0072B2", "val_loss": "#D55E00"}  # two from Okabe and Ito's palette
_LABELS = {"loss": "each update's batch", "train_loss": "training text", "val_loss": "validation text"}


class RunLog:
    """Rows of named numbers, each with the "step" it belongs to; with a `path`, also lines of JSON in that file.

    Not every row has every name: updates have "loss", measurements "val_loss". `column(name)` gives the steps and
    values of those that have it. `truncate(step)` forgets what came after a step, in the file too, so that a training
    resumed from that step's checkpoint writes on as if it had never been interrupted.

    >>> log = RunLog()
    >>> log.add(step=1, loss=4.2); log.add(step=2, loss=3.9); log.add(step=2, val_loss=4.0)
    >>> log.column("loss"), log.last("val_loss")
    (([1, 2], [4.2, 3.9]), 4.0)
    >>> log.truncate(1); log.rows
    [{'step': 1, 'loss': 4.2}]
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = os.fspath(path) if path is not None else None
        self.rows = read_rows(self.path) if self.path is not None and os.path.exists(self.path) else []
        self.latest = _latest(self.rows)
        self._file: Any = None

    def add(self, **row: Any) -> None:
        """Appends a row; it must have a "step"."""
        self.rows.append(row)
        self.latest.update(row)
        if self.path is not None:
            if self._file is None:
                self._file = open(self.path, "a", encoding="utf-8", errors="surrogatepass")  # as json reads it
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def column(self, name: str) -> tuple[list[int], list[Any]]:
        """(steps, values) of the rows that have `name`."""
        rows = [row for row in self.rows if row.get(name) is not None]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def last(self, name: str) -> Any:
        """The latest value called `name`; None where there is none yet."""
        return self.latest.get(name)

    def measured(self) -> dict[str, list[Any]]:
        """The rows of measurements as columns: what all of them have, "step", "val_loss", …; empty before any."""
        rows = [row for row in self.rows if "val_loss" in row]
        names = [name for name in rows[0] if all(name in row for row in rows)] if rows else ["step", "val_loss"]
        return {name: [row[name] for row in rows] for name in names}

    def truncate(self, step: int) -> None:
        """Forgets the rows behind `step`, and in the file a last line that was cut off by a kill."""
        self.close()
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.latest = _latest(self.rows)
        if self.path is not None and os.path.exists(self.path):
            with open(self.path, "r+b") as file:
                kept = 0
                for line in file:
                    if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                        break
                    kept += len(line)
                file.truncate(kept)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def flush(self) -> None:
        """Makes sure that all rows are on the disk: a checkpoint that is written next may rely on them."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes what is left; a later `add` opens the file again."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None

    def plot(self, title: str = "Training") -> Any:
        """A matplotlib Figure of the losses over the steps: every update's, and those measured on both texts.

        A notebook shows it as the last value of a cell; `figure.savefig(path)` writes it.
        """
        from matplotlib.figure import Figure  # not pyplot, which would show it a second time

        if not self.rows:
            raise ValueError("there is nothing to plot: the log is empty")
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.subplots()
        for name in _COLOURS:
            steps, values = self.column(name)
            if values:
                width, marker = (0.8, None) if name == "loss" else (1.8, "o" if len(values) < 30 else None)
                axis.plot(
                    steps, values, label=_LABELS[name], color=_COLOURS[name], lw=width, marker=marker, markersize=4
                )
        axis.set(xlabel="updates", ylabel="loss (nats per token)", title=title)
        axis.grid(alpha=0.3)
        axis.legend()
        return figure


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a log's file; a last line without its end was being written when the training was killed."""
    with open(path, "rb") as file:  # that line may end in the middle of a character
        lines = file.read().split(b"\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
            rows[-1]["step"]
        except (ValueError, TypeError, KeyError):
            start = line[:60].decode("utf-8", "replace")
            raise ValueError(f"{path}, line {number}, is not a row of a training's log: {start!r}") from None
    return rows


def _latest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for row in rows for name, value in row.items()}
