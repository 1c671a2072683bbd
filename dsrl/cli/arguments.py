"""What stands after a verb that runs no pipeline: words, and options written `key=value`."""

from collections.abc import Collection, Mapping, Sequence

from dsrl.core.errors import UserError


def split(arguments: Sequence[str], verb: str, allowed: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Words and options apart. Raises `UserError` for an option that the verb doesn't know."""
    words = [argument for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if unknown := sorted(set(options) - set(allowed)):
        raise UserError(f"{unknown[0]}: unknown option of {verb}", allowed=allowed)
    if flags := [word for word in words if word.startswith("-")]:
        raise UserError(f"{flags[0]}: unknown flag of {verb}", allowed=[f"{name}=..." for name in allowed])
    return words, options


def whole(options: Mapping[str, str], name: str, default: int, least: int) -> int:
    """An option that is a whole number. Raises `UserError` for anything else."""
    given = options.get(name, str(default))
    if not given.isdecimal() or int(given) < least:
        raise UserError(f"{name}: not a whole number", got=given, allowed=f"{least} or more")
    return int(given)


def chosen(options: Mapping[str, str], name: str, default: str, allowed: Collection[str]) -> str:
    """An option that is one of these words. Raises `UserError` for another one."""
    given = options.get(name, default)
    if given not in allowed:
        raise UserError(f"{name}: no such choice", got=given, allowed=allowed)
    return given


def flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """An option that is true or false. Raises `UserError` for anything else."""
    return chosen(options, name, str(default).lower(), ("true", "false")) == "true"
