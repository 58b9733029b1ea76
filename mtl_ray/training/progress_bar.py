"""The bar that a person watches: steps, time left, images a second, loss and what was measured last."""

from typing import Any

from mtl_ray.terminal import progress_bar
from mtl_ray.training.progress import Progress


class ProgressBar:
    """One bar on stderr, drawn once the first progress is known."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def show(self, progress: Progress) -> None:
        """Moves the bar."""
        if self._bar is None:
            self._bar = progress_bar(
                total=progress.steps, initial=progress.first, desc=self._name, unit="step", mininterval=0.1, leave=True, log_from_s=0.0
            )
        figures = {"loss": f"{progress.loss:.4g}", "img/s": f"{progress.images_per_s:.4g}"}
        figures |= {name: f"{value:.3f}" for name, value in list(progress.metrics.items())[:1]}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
