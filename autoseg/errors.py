"""Every error that a user can meet, with its exit code.

AutosegError
├── InputError      2   wrong input or usage
│   └── RecordError 2   a saved record cannot be read: file and field are named
├── CasesFailed     3   some cases failed, the others are done
├── OutOfMemory     4   nothing usable fits the memory
├── Diverged        5   training diverged
└── Interrupted    75   stopped on request; the same command goes on
"""


class AutosegError(Exception):
    """An error to be shown, not traced: what happened, why (with numbers), what is safe, and the next command to type."""

    exit_code = 2
    heading = "ERROR"

    def __init__(self, what: str, why: str = "", done: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.done, self.todo = what, why, done, todo

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        """Errors travel from worker processes; the parts must survive."""
        return type(self), (self.what, self.why, self.done, self.todo)

    def __str__(self) -> str:
        parts = ((self.heading, self.what), ("Why", self.why), ("Done", self.done), ("Next", self.todo))
        return "\n".join(f"{name:<8}{_indented(text)}" for name, text in parts if text)


def _indented(text: str) -> str:
    return text.replace("\n", "\n        ")


class InputError(AutosegError):
    """The input or the command is wrong; nothing was changed."""


class RecordError(InputError):
    """A saved record (plan.json, dataset.json, …) cannot be read."""


class CasesFailed(AutosegError):
    """Some cases failed; the others are done."""

    exit_code = 3
    heading = "FAILED"


class OutOfMemory(AutosegError):
    """Nothing usable fits into the memory."""

    exit_code = 4


class Diverged(AutosegError):
    """Training diverged."""

    exit_code = 5
    heading = "STOPPED"


class Interrupted(AutosegError):
    """Stopped on request; the same command goes on."""

    exit_code = 75
    heading = "STOPPED"
