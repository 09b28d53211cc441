"""The exceptions a user may meet, and how they are shown.

TamenError                  something a person can mend; printed as three lines
├── UsageError              a wrong argument, key or name (exit code 2)
├── DataError               a file or record that is damaged or foreign
├── EvaluationError         the brain could not answer a request
└── ClusterError            Ray, or a part of the run, is not there
"""


class TamenError(Exception):
    """A failure told in three lines: what happened, why, and what to do about it.

    Args:
        what: what could not be done, with the value that was received.
        why: the reason, with the allowed range or the underlying cause.
        fix: the command or the change that mends it.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  do:  {self.fix}"

    def __reduce__(self) -> tuple[object, tuple[type, str, str, str]]:
        # Keyword-only arguments do not survive the default protocol, and errors travel between processes.
        return _rebuild, (type(self), self.what, self.why, self.fix)


def _rebuild(kind: type[TamenError], what: str, why: str, fix: str) -> TamenError:
    return kind(what, why=why, fix=fix)


class UsageError(TamenError):
    """A wrong argument, key or name."""

    exit_code = 2


class DataError(TamenError):
    """A file or record that is damaged, cut short, or belongs to something else."""


class EvaluationError(TamenError):
    """The brain could not answer a request; the rows it held are unevaluated."""


class ClusterError(TamenError):
    """Ray, or a part of the run, cannot be reached or could not be started."""


def of_the_system(error: OSError) -> TamenError:
    """Return what the system refused, a full disk say, as an error told in three lines."""
    return TamenError(
        f"{error.filename} could not be read or written" if error.filename else "the system refused",
        why=error.strerror or str(error) or type(error).__name__,
        fix="see to the disk, its room and its permissions; what was acknowledged is safe",
    )
