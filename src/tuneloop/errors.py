"""One kind of error for everything a user can mend: what was found (and where), what was wanted, how to fix it."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Input, recipe or machine is wrong in a way the user can mend. The command line prints it and exits with code 2.

    `found` is a sentence that names file and line where there is one; `fix` is what to type or change.
    """

    exit_code = 2

    def __init__(self, found: str, *, wanted: str = "", fix: str = "") -> None:
        self.found, self.wanted, self.fix = found, wanted, fix
        super().__init__(self.text)

    @property
    def text(self) -> str:
        lines = [self.found]
        if self.wanted:
            lines.append(f"  wanted: {self.wanted}")
        if self.fix:
            lines.append(f"  fix:    {self.fix}")
        return "\n".join(lines)


class Problems(UserError):
    """Every problem of one file or recipe at once, instead of one per attempt."""

    def __init__(self, problems: Sequence[UserError]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(p.text for p in self.problems))


class TrainingFailed(UserError):
    """Training could not go on (a loss that is not finite, a full disk); what was finished has been kept."""

    exit_code = 1


def raise_all(problems: Sequence[UserError]) -> None:
    """Raise nothing for no problem, the problem itself for one, `Problems` for several."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems)


def missing_extra(package: str, extra: str, why: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(f"{why} needs the package {package}, which is not installed.",
                     fix=f"pip install 'tuneloop[{extra}]'")
