"""How long steps report on themselves: a small protocol that every command takes, so that only the command line decides how it looks."""

from typing import Any, Protocol


class Progress(Protocol):
    """What a command may say while it works."""

    def say(self, text: str, **event: Any) -> None:
        """Tells the user one line (or table); `event` is the same for machines (`--json`)."""

    def warn(self, text: str, **event: Any) -> None:
        """Tells the user something that deserves a look but does not stop the work."""

    def detail(self, text: str) -> None:
        """Says something for `-v` and the log only."""

    def start(self, title: str, total: int) -> None:
        """Begins a long step of `total` parts; the display estimates what remains."""

    def advance(self, note: str = "") -> None:
        """One part of the long step is done."""

    def finish(self) -> None:
        """The long step is over."""


class Silent:
    """A progress that says nothing: for the Python interface and for tests."""

    def say(self, text: str, **event: Any) -> None: ...

    def warn(self, text: str, **event: Any) -> None: ...

    def detail(self, text: str) -> None: ...

    def start(self, title: str, total: int) -> None: ...

    def advance(self, note: str = "") -> None: ...

    def finish(self) -> None: ...
