"""What a script under results/ measured and drew, kept where the sprint's README can quote it."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_atomically
from .sprints import FOLDER, CourseError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Results:
    """Collects the metrics and figures of one script; `save()` merges them into results/metrics.json.

    `script` is the script's `__file__`; it lies in sprints/NN_name/results/. A later run of the same script
    replaces all that this script measured before (but see `save`), and leaves other scripts' values alone.

        results = Results(__file__, seed=0)
        results.metric("final_loss", 0.123, unit="nats")
        results.figure(fig, "loss_curve", alt="The loss falls from 2.3 to 0.1 nats within 200 steps.")
        results.save()
    """

    def __init__(self, script: str | Path, seed: int | None = None, device: str = "cpu") -> None:
        self.script = Path(script).resolve()
        sprint = next((p for p in self.script.parents if FOLDER.match(p.name) and p.parent.name == "sprints"), None)
        if sprint is None:
            raise CourseError(f"{self.script.name} does not lie in sprints/NN_name/results/: Results needs a sprint.")
        self.sprint, self.seed, self.device = sprint, seed, device
        self.folder = sprint / "results"
        self._metrics: dict[str, dict[str, Any]] = {}

    @property
    def path(self) -> Path:
        """Where `save()` writes."""
        return self.folder / "metrics.json"

    def metric(self, name: str, value: Any, unit: str = "", seed: int | None = None, device: str | None = None) -> None:
        """Record one number (or short string). ValueError for what JSON cannot hold: NaN, arrays, …."""
        if hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, (bool, int, float, str)):
            raise ValueError(f"metric {name!r} must be a number or a string, not {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"metric {name!r} is {value}: a result must be finite")
        self._metrics[name] = {
            "value": value,
            "unit": unit,
            "seed": self.seed if seed is None else seed,
            "device": device or self.device,
        }

    def figure(self, figure: Figure, name: str, alt: str, ext: str = "svg") -> Path:
        """Save and close `figure` as results/figures/<name>.<ext> (svg or png), the same bytes on every run.

        `alt` says what there is to see; it travels in the file, and belongs beside the picture too.
        """
        import matplotlib
        import matplotlib.pyplot as plt

        if not alt.strip():
            raise ValueError(f"figure {name!r} needs alt: a sentence that says what there is to see")
        metadata: dict[str, dict[str, str | None]] = {
            "svg": {"Date": None, "Creator": None, "Title": alt},
            "png": {"Software": None, "Description": alt},
        }
        if ext not in metadata:
            raise ValueError(f"figure {name!r}: ext must be svg or png, not {ext!r}")
        path = self.folder / "figures" / f"{name}.{ext}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"svg.hashsalt": "sprint-to-gpt"}):
            figure.savefig(path, format=ext, metadata=metadata[ext])
        plt.close(figure)
        return path

    def save(self, keep: Callable[[str], bool] | None = None) -> Path:
        """Merge what was recorded into metrics.json, in one atomic step, and return its path.

        What this script measured before goes, except the names for which `keep(name)` is true: a script whose long
        run (`--full`) was not asked for this time leaves that run's numbers, with their date, in place.
        """
        try:
            script = self.script.relative_to(self.folder).as_posix()
        except ValueError:
            script = self.script.relative_to(self.sprint).as_posix()
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            kept = {}
        except json.JSONDecodeError as error:
            raise CourseError(
                f"{self.path} is not valid JSON ({error}): delete it and run the scripts again."
            ) from None
        kept = {
            name: entry
            for name, entry in kept.items()
            if entry.get("script") != script or (keep is not None and keep(name))
        }
        origin = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "script": script,
            "script_sha256": hashlib.sha256(self.script.read_bytes()).hexdigest(),
        }
        kept.update({name: {**entry, **origin} for name, entry in self._metrics.items()})
        write_atomically(self.path, json.dumps(dict(sorted(kept.items())), indent=2, ensure_ascii=False) + "\n")
        return self.path
