"""The progress bar of a sweep."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from linksim.train.loop import State


class Bar:
    """A bar over units with the time left; counts that were there before do not speed up the estimate."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown and sys.stderr is not None
        self._bar: tqdm | None = None

    def __enter__(self) -> Bar:
        return self

    def update(self, done: int, total: int) -> None:
        """Sets the bar to `done` of `total` units."""
        if not self._shown:
            return
        try:
            if self._bar is None:
                self._bar = tqdm(
                    total=total, initial=done, unit="unit", desc="sweep", smoothing=0.1, dynamic_ncols=True
                )
                self._bar.start_t = time.time()
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        except (OSError, ValueError):
            # Nobody can see the bar; the sweep goes on.
            self._shown, self._bar = False, None

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Download:
    """A bar over the bytes of a download; quiet where there is nothing to fetch."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
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


class TrainingBar:
    """A bar over training steps with the speed in image groups, the loss and the validation PSNR."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None

    def __enter__(self) -> TrainingBar:
        print(f"{self._name}: measuring the speed", file=sys.stderr, flush=True)
        return self

    def update(self, state: State, losses: Mapping[str, float]) -> None:
        """Sets the bar to the state of a run."""
        if self._bar is None:
            self._bar = tqdm(total=state.steps, initial=state.step, unit="step", desc=self._name, dynamic_ncols=True)
        self._bar.update(state.step - self._bar.n)
        shown = "/".join(f"{value:.2f}" for value in state.validation) or "-"
        self._bar.set_postfix_str(f"loss {losses['total']:.4f}, best {shown} dB")

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
