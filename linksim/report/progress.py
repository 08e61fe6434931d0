"""Progress bars: of a sweep, a figure, a download, a training run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from linksim.models.checkpoint import State


# Seconds between two states of a bar: where somebody watches, and in a log file.
WATCHED, LOGGED = 0.1, 30.0


class Bar:
    """A bar over units with the time left; counts that were there before do not speed up the estimate."""

    def __init__(self, shown: bool = True, name: str = "sweep") -> None:
        self._shown, self._name = shown and sys.stderr is not None, name
        self._bar: tqdm[Any] | None = None
        self._interval = WATCHED if self._shown and sys.stderr.isatty() else LOGGED
        self._stepped = 0.0
        self._told = ""

    def __enter__(self) -> Bar:
        return self

    def update(self, done: int, total: int) -> None:
        """Sets the bar to `done` of `total` units."""
        if not self._shown:
            return
        try:
            if self._bar is None:
                self._bar = tqdm(
                    total=total, initial=done, unit="unit", desc=self._name, smoothing=0.1, dynamic_ncols=True,
                    mininterval=self._interval,
                )  # fmt: skip
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        except (OSError, ValueError):
            # Nobody can see the bar; the sweep goes on.
            self._shown, self._bar = False, None

    def steps(self, done: int, total: int) -> None:
        """Shows the steps of the refinement that is at work."""
        if self._bar is not None and (now := time.monotonic()) - self._stepped >= self._interval:
            self._stepped = now
            self._bar.set_postfix_str(f"refining: step {done} of {total}")

    def tell(self, text: str) -> None:
        """Shows what the work is waiting for; nothing where the text is empty."""
        if self._bar is not None and text != self._told:
            self._told = text
            self._bar.set_postfix_str(text)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Bars:
    """A bar for each part of a figure, one after the other."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._bar = Bar(False)

    def __enter__(self) -> Bars:
        return self

    def of(self, name: str) -> Callable[[int, int], None]:
        """Ends the bar before and begins that of `name`."""
        self._bar.__exit__()
        self._bar = Bar(self._shown, name)
        return self._bar.update

    def steps(self, done: int, total: int) -> None:
        """Shows the steps of the refinement that is at work."""
        self._bar.steps(done, total)

    def tell(self, text: str) -> None:
        """Shows what the work is waiting for."""
        self._bar.tell(text)

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__()


class Download:
    """A bar over the bytes of a download; quiet where there is nothing to fetch."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._what = ""

    def __enter__(self) -> Download:
        return self

    def update(self, what: str, done: int, total: int | None) -> None:
        """Sets the bar to `done` of `total` bytes of `what`."""
        if self._bar is None or what != self._what:
            self.close()
            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=what, dynamic_ncols=True)
            self._what = what
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *error: object) -> None:
        self.close()


def figures(validation: Mapping[str, float]) -> str:
    """The figures of a validation in a few words: `20.76/26.15/28.22 psnr_0db/10db/20db` is all that is long."""
    return ", ".join(f"{name} {value:.4g}" for name, value in validation.items())


class TrainingBar:
    """A bar over a run's image groups with speed, time left, loss and validation PSNR.

    Where nobody watches (a log file, several models side by side) it is a line for each validation.

    Args:
        name: of the model.
        batch: image groups (or images) a step.
        unit: "pairs" or "images", what `batch` counts.
        shown: False tells nothing: another process does.
    """

    def __init__(self, name: str, batch: int, unit: str = "pairs", shown: bool = True) -> None:
        self._shown = shown
        self._name, self._batch, self._unit = name, batch, unit
        self._bar: tqdm[Any] | None = None
        self._lines = not sys.stderr.isatty()
        self._told: Mapping[str, float] = {}
        self._begin = (0, 0.0)

    def __enter__(self) -> TrainingBar:
        if self._shown:
            print(f"{self._name}: getting ready", file=sys.stderr, flush=True)
        return self

    def prepared(self, done: int, total: int) -> None:
        """Shows how many of the images to train on are ready."""
        if self._shown and self._bar is None and done < total:
            self._bar = tqdm(
                total=total, unit=" images", desc="preparing images", dynamic_ncols=True,
                mininterval=LOGGED if self._lines else WATCHED,
            )  # fmt: skip
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()
                self._bar = None

    def update(self, state: State, losses: Mapping[str, float]) -> None:
        """Sets the bar to the state of a run."""
        shown = figures(state.validation) or "-"
        if self._lines:
            self._line(state, shown)
            return
        done, total = state.step * self._batch, state.steps * self._batch
        if self._bar is None:
            self._bar = tqdm(total=total, initial=done, unit=f" {self._unit}", desc=self._name, dynamic_ncols=True)
        self._bar.update(done - self._bar.n)
        loss = f"loss {losses['total']:.4f}, " if losses else ""
        self._bar.set_postfix_str(f"{loss}best {shown}", refresh=False)

    def _line(self, state: State, shown: str) -> None:
        now = time.monotonic()
        if not self._begin[1]:
            self._begin, self._told = (state.step, now), state.validation
            print(f"{self._name}: step {state.step} of {state.steps}", file=sys.stderr, flush=True)
        if state.validation == self._told and state.step < state.steps:
            return
        self._told = state.validation
        speed = (state.step - self._begin[0]) / max(now - self._begin[1], 1e-9)
        left = (state.steps - state.step) / speed / 60 if speed else 0.0
        print(
            f"{self._name}: {state.step}/{state.steps} steps, {speed * self._batch:.0f} {self._unit}/s, best {shown}, "
            f"{left:.0f} min left",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
