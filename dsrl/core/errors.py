"""Errors for the user: what is wrong, what was found, what is allowed, what to do next."""


class UserError(ValueError):
    """An error that the user can fix. It is printed without a traceback; the process exits with `exit_code`."""

    exit_code = 2

    def __init__(self, what: str, *, got: object = None, allowed: object = None, next_step: str | None = None) -> None:
        lines = [what]
        if got is not None:
            lines.append(f"  got:     {got}")
        if allowed is not None:
            lines.append(f"  allowed: {allowed if isinstance(allowed, str) else ', '.join(map(str, allowed))}")  # type: ignore[call-overload]
        if next_step is not None:
            lines.append(f"  next:    {next_step}")
        super().__init__("\n".join(lines))


class BudgetReached(UserError):
    """The next request could exceed `budget_usd` or `budget_tokens`. Paid replies are kept."""

    exit_code = 4


class StageFailed(UserError):
    """A stage could not finish: a failed training, an endpoint that is down. Paid replies are kept."""

    exit_code = 3
