"""The errors a user sees: what is wrong, what was found, what is allowed, what to do next."""


class UserError(ValueError):
    """Something only the user can put right. Printed without a traceback; the process ends with `exit_code`."""

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
    """The next request could have passed `budget_usd` or `budget_tokens`. What was paid for is kept."""

    exit_code = 4


class StageFailed(UserError):
    """A stage could not finish (a training that broke, an endpoint that is down). What was paid for is kept."""

    exit_code = 3
