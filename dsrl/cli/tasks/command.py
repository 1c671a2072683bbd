"""`dsrl task ACTION`."""

from dsrl.cli.tasks.loading import words
from dsrl.core.errors import UserError

USAGE = (
    "dsrl task ls | new NAME | check NAME | demos NAME count=10, each with --config-dir FOLDER for tasks of your own"
)


def task(arguments: list[str]) -> int:
    """`dsrl task ls|new|check|demos`. Returns the exit code."""
    from dsrl.cli.tasks.check import check
    from dsrl.cli.tasks.demos import demos
    from dsrl.cli.tasks.listing import ls
    from dsrl.cli.tasks.new import new

    actions = {"ls": ls, "new": new, "check": check, "demos": demos}
    if not arguments or arguments[0] not in actions:
        raise UserError("task: unknown action", got=" ".join(arguments) or None, allowed=USAGE)
    return actions[arguments[0]](words(arguments[1:]))
