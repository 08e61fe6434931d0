"""Progress bars: of a sweep, a figure, a download, a training run."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tqdm import tqdm

if TYPE_CHECKING:
    from linksim.models.checkpoint import State


# Seconds between two states of a bar: where somebody watches, and in a log file.
WATCHED, LOGGED = 0.1, 30.0


class _Units(tqdm):  # type: ignore[type-arg]
    """A bar whose time left is told and not guessed: units of several schemes differ by a factor of hundreds."""

    open: ClassVar[set[_Units]] = set()
    left: float | None = None
    watched = False

    @property
    def format_dict(self) -> dict[str, Any]:
        """What `_FORMAT` may name."""
        return {**super().format_dict, "left": "?" if self.left is None else self.format_interval(self.left)}


def make_room() -> None:
    """Has a line that is printed next stand on a line of its own: above the bars of a terminal, else below them."""
    for bar in list(_Units.open):
        with contextlib.suppress(OSError, ValueError):
            if bar.watched:
                bar.clear()
            else:
                print(file=sys.stderr, flush=True)


_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} units [{elapsed}<{left}{postfix}]"

#: The same before anybody knows how many units there are.
_FORMAT_BEFORE = "{desc} [{elapsed}{postfix}]"


class Bar:
    """A bar over the units of a sweep, from its first second to its last table.

    Where somebody watches, its clock goes on while a unit takes long.
    """

    def __init__(self, shown: bool = True, name: str = "sweep") -> None:
        self._shown, self._name = shown and sys.stderr is not None, name
        self._bar: _Units | None = None
        # A notebook is no terminal, and shows a line that is written over all the same.
        self._watched = self._shown and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._interval = WATCHED if self._watched else LOGGED
        self._stepped = 0.0
        self._told = ""
        self._ended = threading.Event()

    def __enter__(self) -> Bar:
        return self

    def update(self, done: int, total: int, left: float | None = None) -> None:
        """Sets the bar to `done` of `total` units, with `left` seconds to go."""
        if (bar := self._begun()) is None:
            return
        try:
            if bar.bar_format != _FORMAT:
                bar.bar_format, self._told = _FORMAT, ""
                bar.set_postfix_str("", refresh=False)
                bar.reset(total)
                bar.n = bar.initial = done
                bar.refresh()
            bar.total, bar.left = total, left if done < total else 0.0
            bar.update(done - bar.n)
        except (OSError, ValueError):
            # Nobody can see the bar; the sweep goes on.
            self._shown, self._bar = False, None

    def steps(self, done: int, total: int) -> None:
        """Shows the steps of the refinement that is at work."""
        if self._bar is not None and (now := time.monotonic()) - self._stepped >= self._interval:
            self._stepped = now
            self._bar.set_postfix_str(f"refining: step {done} of {total}")

    def tell(self, text: str) -> None:
        """Shows what is going on beside the units; nothing where the text is empty.

        Before the first unit somebody has to watch: a log file would have an error behind it on one line.
        """
        if self._bar is None and not self._watched:
            return
        if text != self._told and (bar := self._begun()) is not None:
            self._told = text
            with contextlib.suppress(OSError, ValueError):
                bar.set_postfix_str(text)

    def _begun(self) -> _Units | None:
        if self._shown and self._bar is None:
            try:
                self._bar = _Units(
                    bar_format=_FORMAT_BEFORE, desc=self._name, dynamic_ncols=True, mininterval=self._interval,
                    file=sys.stderr,
                )  # fmt: skip
            except (OSError, ValueError):
                self._shown = False
                return None
            _Units.open.add(self._bar)
            if self._watched:
                self._bar.watched = True
                threading.Thread(target=self._go_on, args=(self._bar,), daemon=True).start()
        return self._bar

    def _go_on(self, bar: _Units) -> None:
        while not self._ended.wait(1.0):
            try:
                bar.refresh()
            except (OSError, ValueError):
                return

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._bar is not None:
            # What never came to a unit ends with its own line.
            self._bar.leave = self._bar.bar_format == _FORMAT
            self._bar.close()
            _Units.open.discard(self._bar)


class Bars:
    """A bar for each part of a figure, one after the other."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._bar = Bar(shown, "figure")

    def __enter__(self) -> Bars:
        return self

    def of(self, name: str) -> Callable[[int, int, float | None], None]:
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
        return self

    def begin(self) -> None:
        """Says that all that was asked for is there."""
        if self._shown:
            print(f"{self._name}: getting ready", file=sys.stderr, flush=True)

    def prepared(self, done: int, total: int) -> None:
        """Shows how many of the images to train on are ready."""
        self._before(done, total, "preparing images", " images")

    def embedded(self, done: int, total: int) -> None:
        """Shows the steps in which users learn to start as in separate channel uses."""
        self._before(done, total, f"{self._name}: orthogonal embedding", " steps")

    def _before(self, done: int, total: int, what: str, unit: str) -> None:
        if self._shown and self._bar is None and done < total:
            self._bar = tqdm(
                total=total, unit=unit, desc=what, dynamic_ncols=True, mininterval=LOGGED if self._lines else WATCHED
            )
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
