"""A bar that shows how far a training of many updates is."""

from __future__ import annotations

from typing import Any

from shared.training.run_log import RunLog


class StepBar:
    """A tqdm bar over the updates, or nothing; samples are written above it."""

    def __init__(self, done: int, total: int, shown: bool):
        self.bar: Any = None
        if shown:
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done, unit="step", mininterval=0.5)

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, row: dict[str, Any], log: RunLog) -> None:
        """The latest batch's loss, and the validation loss measured last."""
        if self.bar is not None:
            val = log.last("val_loss")
            told = f"loss {row['loss']:.3f}" + (f", val {val:.3f}" if val is not None else "")
            self.bar.set_postfix_str(told, refresh=False)
            self.bar.update()

    def write(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
