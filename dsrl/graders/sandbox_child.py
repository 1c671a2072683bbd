"""Run by path in the sandboxed process; imports no dsrl. Isolates itself, then runs the tests and the program apart.

Three processes: this one waits; its child runs the tests and alone decides the verdict; the child of that one imports
the program and serves calls to it. The program never shares an interpreter, readable memory or a process table with
the tests: all that passes between them is JSON. What is no builtin value stays where it is, and the other side holds
a proxy for it. The program may only call what the tests hand to it.
"""

import builtins
import collections
import ctypes
import datetime
import enum
import json
import operator
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

NEW_USER, NEW_PROCESSES = 0x10000000, 0x20000000
NAMESPACES = {"user": NEW_USER, "network": 0x40000000, "IPC": 0x08000000, "mount": 0x00020000}
FILE_BYTES = 1 << 16
FOLDER_OPTIONS = b"size=8m,nr_inodes=256,mode=777"
MAX_MESSAGE = 8 << 20
MAX_DEPTH = 50
NOT_ISOLATED, PASSED, OUT_OF_TIME = 77, 78, 79
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
FILE_RIGHTS = [0, (1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1]
"""All rights on files that each version of Landlock knows."""
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1, 2, 4, 8
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    order = receive(0)
    missing = isolate(os.getcwd())
    if missing and order["require_isolation"]:
        os.write(1, ", ".join(missing).encode())
        os._exit(NOT_ISOLATED)
    tester = os.fork()
    if tester == 0:
        end_with_parent()
        os._exit(run_apart(order))
    _, status = os.waitpid(tester, 0)
    os._exit(OUT_OF_TIME if was_killed(status) else os.waitstatus_to_exitcode(status) & 0xFF)


def run_apart(order: dict[str, Any]) -> int:
    """Run the tests here and the program in a child. Returns the exit status."""
    requests, replies = os.pipe(), os.pipe()
    LIBC.unshare(NEW_PROCESSES)
    program = os.fork()
    if program == 0:
        end_with_parent()
        os.setsid()  # its process 0 and group are not those of the tests
        for stream in (0, 1, requests[1], replies[0]):
            os.close(stream)
        limit(order)
        serve_program(order["program"], Peer(requests[0], replies[1], exposed=True))
        os._exit(0)
    os.close(requests[0])
    os.close(replies[1])
    limit(order)
    peer = Peer(replies[0], requests[1], exposed=False)
    passed = run_tests(receive(0), peer)
    if not peer.lost:
        return PASSED if passed else 1
    _, status = os.waitpid(program, 0)
    return OUT_OF_TIME if was_killed(status) else 1


def was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)


# ------------------------------------------------------------------------------------------------- isolation


def isolate(folder: str) -> list[str]:
    """Give rights away. Returns what this system doesn't let a process give away; empty if everything is closed."""
    if not sys.platform.startswith("linux"):
        return ["namespaces and Landlock (Linux only)"]
    user, group = os.geteuid(), os.getegid()
    missing = [f"a {name} namespace" for name, flag in NAMESPACES.items() if LIBC.unshare(flag) != 0]
    if LIBC.unshare(NEW_PROCESSES) != 0:
        missing.append("a process namespace")
    if not missing:
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
        if LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", 6, FOLDER_OPTIONS) != 0:  # no set-user-ID, no devices
            missing.append("a small file system of its own")
        os.chdir(folder)
    LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if not restrict_files(folder):
        missing.append("Landlock")
    return missing


def restrict_files(folder: str) -> bool:
    """Whether Landlock now allows to read Python and the system's libraries, and to write in `folder`, and no more."""
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    rights = FILE_RIGHTS[min(version, len(FILE_RIGHTS) - 1)]
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)  # TCP; abstract sockets and signals
    attribute = (ctypes.c_uint64 * 3)(rights, network, scope)
    rules = LIBC.syscall(LANDLOCK_CREATE, attribute, 24 if version >= 6 else 16 if version >= 4 else 8, 0)
    libraries = {sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"}
    allowed = [(path, EXECUTE | READ_FILE | READ_FOLDER) for path in libraries]
    allowed += [(path, READ_FILE | WRITE_FILE) for path in DEVICES] + [(folder, rights)]
    for path, wanted in allowed:
        if not os.path.exists(path):
            continue
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        wanted &= rights if os.path.isdir(path) else EXECUTE | READ_FILE | WRITE_FILE
        rule = wanted.to_bytes(8, "little") + opened.to_bytes(4, "little")
        if LIBC.syscall(LANDLOCK_ADD, rules, 1, rule, 0) != 0:
            return False
        os.close(opened)
    return bool(LIBC.syscall(LANDLOCK_RESTRICT, rules, 0) == 0)


def limit(order: dict[str, Any]) -> None:
    """Soft and hard limits alike, so that the program can't raise them; and no capabilities inside the namespaces."""
    seconds, memory = max(1, round(order["seconds"] + 0.5)), order["memory_mb"] << 20
    for name, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))
    LIBC.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def end_with_parent() -> None:
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# -------------------------------------------------------------------------------------------------- messages


def read_exactly(stream: int, size: int) -> bytes:
    parts = []
    while size > 0:
        part = os.read(stream, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive(stream: int) -> Any:
    size = int(read_exactly(stream, 10))
    if not 0 <= size <= MAX_MESSAGE:
        raise EOFError
    return json.loads(read_exactly(stream, size))


def send(stream: int, message: Any) -> None:
    body = json.dumps(message).encode()
    data = b"%010d" % len(body) + body
    while data:
        data = data[os.write(stream, data) :]


CONTAINERS: dict[Any, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
BUILT: dict[str, tuple[Any, Callable[[Any], list[Any]]]] = {
    "Decimal": (Decimal, lambda value: [str(value)]),
    "Fraction": (Fraction, lambda value: [value.numerator, value.denominator]),
    "range": (range, lambda value: [value.start, value.stop, value.step]),
    "date": (datetime.date, lambda value: [value.year, value.month, value.day]),
    "timedelta": (datetime.timedelta, lambda value: [value.days, value.seconds, value.microseconds]),
    "deque": (collections.deque, lambda value: [list(value)]),
}
"""Classes whose objects are passed by value: name -> class, and the arguments that build an equal one."""
CONSTANTS: dict[str, Any] = {"None": None, "Ellipsis": Ellipsis, "NotImplemented": NotImplemented}


class Peer:
    """One end of the pipes between tests and program: asks the other end, and answers it while it waits."""

    def __init__(self, incoming: int, outgoing: int, exposed: bool) -> None:
        self.incoming, self.outgoing, self.exposed = incoming, outgoing, exposed
        self.objects: list[Any] = []
        self.classes: dict[Any, type] = {}
        self.lost = False

    def ask(self, action: str, place: int, *arguments: Any) -> Any:
        """The result of an operation on object `place` of the other end. Raises what it raises there."""
        send(self.outgoing, ["ask", action, place, self.encode(list(arguments))])
        return self.result()

    def result(self) -> Any:
        while True:
            try:
                kind, *message = receive(self.incoming)
            except EOFError:
                self.lost = True
                raise
            if kind != "ask":
                break
            self.answer(*message)
        if kind == "ok":
            return self.decode(message[0])
        base, own, text = message
        error = self.classes.get(own) or getattr(builtins, base)
        raise (error if issubclass(error, Exception) else RuntimeError)(text)

    def answer(self, action: str, place: int, arguments: Any) -> None:
        try:
            target = self.objects[place]
            if not self.exposed and action not in ("call", "next", "iter"):
                raise PermissionError(action)
            reply = ["ok", self.encode(perform(action, target, self.decode(arguments)))]
        except BaseException as error:  # noqa: BLE001  whatever a program raises
            reply = self.failure(error)
        send(self.outgoing, reply)

    def failure(self, error: BaseException) -> list[Any]:
        base = next(one for one in type(error).__mro__ if one.__module__ == "builtins")
        own = next((place for place, value in enumerate(self.objects) if value is type(error)), None)
        return ["error", base.__name__, own, str(error)[:1000]]

    def encode(self, value: Any, depth: int = 0) -> list[Any]:
        """A value as JSON: builtin values as such, everything else as a reference."""
        kind = type(value)
        if kind.__module__ == "numpy" and hasattr(value, "tolist"):
            return ["numpy", [value.dtype.str, self.encode(value.tolist(), depth + 1)]]
        if kind.__name__ in BUILT and kind is BUILT[kind.__name__][0]:
            return ["built", [kind.__name__, [self.encode(part) for part in BUILT[kind.__name__][1](value)]]]
        if value is None or value is Ellipsis or value is NotImplemented:
            return ["constant", str(value)]
        if isinstance(value, (str, int, float)) and not isinstance(value, enum.Enum):
            if isinstance(value, int) and abs(int(value)) >= 1 << 53:
                return ["int", hex(int(value))]
            builtin: Any = next(one for one in (bool, int, float, str) if isinstance(value, one))
            return ["value", str.__str__(value) if isinstance(value, str) else builtin(value)]
        if kind in (bytes, bytearray):
            return ["bytes", value.hex()]
        if kind is complex:
            return ["complex", [value.real, value.imag]]
        if kind in CONTAINERS and depth < MAX_DEPTH:
            return [CONTAINERS[kind], [self.encode(item, depth + 1) for item in value]]
        if isinstance(value, dict) and kind.__module__ in ("builtins", "collections") and depth < MAX_DEPTH:
            return ["dict", [[self.encode(one, depth + 1) for one in pair] for pair in value.items()]]
        if isinstance(value, Proxy):
            return ["yours", object.__getattribute__(value, "_place")]
        if isinstance(value, type) and "_place" in value.__dict__:
            return ["yours", value.__dict__["_place"]]
        return self.refer(value, kind, depth)

    def refer(self, value: Any, kind: type, depth: int) -> list[Any]:
        """A reference to an object of this end; with its items if it is a named tuple or the like."""
        self.objects.append(value)
        place = len(self.objects) - 1
        if isinstance(value, type) and issubclass(value, BaseException):
            base = next(one for one in value.__mro__ if one.__module__ == "builtins")
            return ["exception", [place, value.__name__, base.__name__]]
        container = next((one for one in (*CONTAINERS, dict) if isinstance(value, one)), None)
        plain = self.encode(container(value), depth + 1) if container and depth < MAX_DEPTH else None
        return ["mine", [place, kind.__name__, callable(value), hasattr(kind, "__next__"), plain]]

    def decode(self, message: Any) -> Any:
        kind, value = message
        if kind == "constant":
            return CONSTANTS[value]
        if kind == "value":
            return value
        if kind == "int":
            return int(value, 16)
        if kind == "bytes":
            return bytes.fromhex(value)
        if kind == "complex":
            return complex(*value)
        if kind == "dict":
            return {self.decode(key): self.decode(item) for key, item in value}
        if kind == "yours":
            return self.objects[value]
        if kind == "exception":
            place, name, base = value
            parent = getattr(builtins, base)
            if not (isinstance(parent, type) and issubclass(parent, BaseException)):
                raise EOFError
            return self.classes.setdefault(place, type(name, (parent,), {"_place": place}))
        if kind == "mine":
            place, name, is_callable, is_iterator, plain = value
            base = CallableProxy if is_callable else IteratorProxy if is_iterator else Proxy
            return type(name, (base,), {})(self, place, None if plain is None else self.decode(plain))
        if kind == "built":
            name, parts = value
            return BUILT[name][0](*[self.decode(part) for part in parts])
        if kind == "numpy":
            import numpy

            return numpy.array(self.decode(value[1]), dtype=numpy.dtype(value[0]))[()]
        container = next(container for container, name in CONTAINERS.items() if name == kind)
        return container([self.decode(item) for item in value])


def perform(action: str, target: Any, arguments: Any) -> Any:
    """One operation on an object of this end."""
    if action == "call":
        return target(*arguments[0], **arguments[1])
    if action == "get":
        return getattr(target, arguments[0])
    if action == "set":
        return setattr(target, *arguments)
    if action == "instance":
        return isinstance(arguments[0], target)
    if action in ("len", "iter", "next", "str", "repr", "hash", "bool", "int", "float", "abs", "round"):
        return getattr(builtins, action)(target, *arguments)
    if action == "enter":
        return type(target).__enter__(target)
    if action == "exit":
        return type(target).__exit__(target, None, None, None)
    if action.startswith("r_"):
        return getattr(operator, action[2:])(arguments[0], target)
    return getattr(operator, action)(target, *arguments)


class Proxy:
    """An object of the other end, which says what is equal and in which order among its own objects only.

    Against a value the tests decide: an object that is equal to everything, or 0 away from it, would pass them all.
    `plain` is the builtin value of a named tuple and the like.
    """

    def __init__(self, peer: Peer, place: int, plain: Any) -> None:
        for name, value in (("_peer", peer), ("_place", place), ("_plain", plain)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self, "set", name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Proxy):
            return ask(self, "eq", other) is True
        plain = object.__getattribute__(self, "_plain")
        return plain is not None and plain == other

    def __hash__(self) -> int:
        return int(ask(self, "hash"))

    def __len__(self) -> int:
        return int(ask(self, "len"))

    def __bool__(self) -> bool:
        return ask(self, "bool") is True

    def __iter__(self) -> Iterator[Any]:
        return iter(ask(self, "iter"))

    def __enter__(self) -> Any:
        return ask(self, "enter")

    def __exit__(self, *_error: object) -> None:
        ask(self, "exit")

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Proxy) and ask(self, "instance", value) is True


class CallableProxy(Proxy):
    """A function, class or callable object of the other end."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return ask(self, "call", list(arguments), named)


class IteratorProxy(Proxy):
    """A generator or another iterator of the other end."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return ask(self, "next")


def ask(proxy: Proxy, action: str, *arguments: Any) -> Any:
    peer, place = (object.__getattribute__(proxy, name) for name in ("_peer", "_place"))
    return peer.ask(action, place, *arguments)


def forward(action: str) -> Callable[..., Any]:
    return lambda self, *arguments: ask(self, action, *arguments)


def forward_among_proxies(action: str) -> Callable[..., Any]:
    """For operations that would tell the program which value a test expects."""
    return lambda self, other: ask(self, action, other) if isinstance(other, Proxy) else NotImplemented


for operation in ("str", "repr", "int", "float", "abs", "round", "neg"):
    setattr(Proxy, f"__{operation}__", forward(operation))
for operation in ("getitem", "setitem", "delitem"):
    setattr(Proxy, f"__{operation}__", forward(operation))
for operation in ("add", "mul", "floordiv", "mod", "pow", "matmul"):
    setattr(Proxy, f"__{operation}__", forward(operation))
    setattr(Proxy, f"__r{operation}__", forward(f"r_{operation}"))
for operation in ("lt", "le", "gt", "ge", "sub", "truediv"):
    setattr(Proxy, f"__{operation}__", forward_among_proxies(operation))


# ------------------------------------------------------------------------------------------ program and tests


def serve_program(program: str, peer: Peer) -> None:
    """Run the program, send its names, then answer the tests until they end."""
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(program, "program", "exec"), module.__dict__)  # noqa: S102
    except (SystemExit, EOFError):  # `sys.exit()` ends it, and so does `input()`, which finds no input
        pass
    except BaseException as error:  # noqa: BLE001  whatever a program raises
        send(peer.outgoing, peer.failure(error))
        return
    names = {name: value for name, value in module.__dict__.items() if not name.startswith("__")}
    send(peer.outgoing, ["ok", peer.encode(names)])
    while True:
        try:
            _, *request = receive(peer.incoming)
        except EOFError:
            return
        peer.answer(*request)


def run_tests(tests: str, peer: Peer) -> bool:
    """Whether the tests end without an error. The program's names are put beside builtins that it can't reach."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        code = compile(tests, "tests", "exec")
        names = peer.result()
        module = types.ModuleType("solution")
        module.__dict__.update(names)
        sys.modules.update(solution=module, program=module)
        exec(code, {**names, "__name__": "tests", "__builtins__": builtins})  # noqa: S102
    except BaseException:  # noqa: BLE001  whatever a test raises
        return False
    return True


if __name__ == "__main__":
    main()
