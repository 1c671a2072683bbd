"""`dsrl task VERB`."""

from dsrl.cli.tasks.loading import words
from dsrl.core.errors import UserError

VERBS = (
    "dsrl task ls | new NAME | check NAME | demos NAME count=10, each with --config-dir FOLDER for tasks of your own"
)


def task(arguments: list[str]) -> int:
    """Does what the words after `dsrl task` say; returns the exit code."""
    from dsrl.cli.tasks.check import check
    from dsrl.cli.tasks.demos import demos
    from dsrl.cli.tasks.listing import ls
    from dsrl.cli.tasks.new import new

    verbs = {"ls": ls, "new": new, "check": check, "demos": demos}
    if not arguments or arguments[0] not in verbs:
        raise UserError("task: what?", got=" ".join(arguments) or None, allowed=VERBS)
    return verbs[arguments[0]](words(arguments[1:]))
