"""The runtimes of containers: what the command lines of each look like. Pure; standard library and the leaf only.

``argv`` makes the line that runs a command in an image. Variables that the container is to have are given by name: the
process that starts the line has them in its own environment, so that no value shows on a command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flow_core.interfaces.container import Bind, is_path

_Words = tuple[str, ...]

DEVICES: Final = {"nvidia": "/dev/nvidiactl", "amd": "/dev/kfd"}
"""Kinds of accelerators that containers are given, and the device file by which a node shows that it has them."""

HOST_ONLY: Final = (
    "BASH_ENV",
    "ENV",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)
"""Variables of a node that mean nothing, or harm, in a container whose runtime hands the whole environment on."""

IMAGE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH in containers whose runtime hands on that of the node."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The words of one runtime's command lines; fields in braces are filled in.

    Attributes:
        program: The command.
        run: Words that begin a run, after the program.
        bind: Words of a bind, with ``{source}`` and ``{target}``.
        read_only: The same, read-only; empty: the runtime knows none, and the bind is like any other.
        variable: Words that hand on a variable of the starter's environment, with ``{name}``; empty: all are.
        directory: Words that set the working directory, with ``{path}``.
        named: Words that name the container, with ``{name}``; empty: a container is its process, and has no name.
        user: Words that run it as a user, with ``{uid}`` and ``{gid}``; empty: it is always the starter's.
        stdin: Words that hand on the standard input; empty: it is handed on.
        memory: Words that limit memory, with ``{mib}``; empty: the runtime has no such limit of its own.
        cores: Words that limit cores, with ``{cores}``; empty: likewise.
        gpus: Words that give it all accelerators of a kind of ``DEVICES``.
        image: The image, with ``{image}``, after all options.
        before_command: Words between image and command.
        remove: Command that ends and removes a container, with ``{name}``; empty: it ends with its process.
        present: Command that succeeds where the image is on the node, with ``{image}``; empty: its file is looked at.
        fetch: Command that brings it there; empty: the run does so itself, or nobody can.
        identity: Command that writes what stands for the image's content; empty: unknown.
    """

    program: str
    run: _Words
    bind: _Words
    image: _Words
    read_only: _Words = ()
    variable: _Words = ()
    directory: _Words = ()
    named: _Words = ()
    user: _Words = ()
    stdin: _Words = ()
    memory: _Words = ()
    cores: _Words = ()
    gpus: Mapping[str, _Words] = field(default_factory=dict)
    before_command: _Words = ()
    remove: _Words = ()
    present: _Words = ()
    fetch: _Words = ()
    identity: _Words = ()


def _of_engine(program: str, nvidia: _Words, present: _Words, remove: _Words) -> Runtime:
    return Runtime(
        program=program,
        # The network of the node, where the interchange is reached. An image's entry point would take the command for
        # its arguments; labels of SELinux would keep it from what is bound.
        run=("run", "--rm", "--init", "--network=host", "--entrypoint=", "--security-opt=label=disable"),
        bind=("--volume={source}:{target}",),
        read_only=("--volume={source}:{target}:ro",),
        variable=("--env={name}",),
        directory=("--workdir={path}",),
        named=("--name={name}",),
        user=("--user={uid}:{gid}",),
        stdin=("--interactive",),
        memory=("--memory={mib}m",),
        cores=("--cpus={cores}",),
        gpus={"nvidia": nvidia, "amd": ("--device=/dev/kfd", "--device=/dev/dri")},
        image=("{image}",),
        remove=(program, *remove, "{name}"),
        present=(program, *present, "{image}"),
        fetch=(program, "pull", "--quiet", "{image}"),
        identity=(program, "image", "inspect", "--format={{.Id}}", "{image}"),
    )


def _of_apptainer(program: str) -> Runtime:
    return Runtime(
        program=program,
        run=("--silent", "exec"),
        bind=("--bind={source}:{target}",),
        read_only=("--bind={source}:{target}:ro",),
        directory=("--pwd={path}",),
        gpus={"nvidia": ("--nv",), "amd": ("--rocm",)},
        image=("{image}",),
    )


TABLE: Final[Mapping[str, Runtime]] = {
    "podman": _of_engine(
        "podman", ("--device=nvidia.com/gpu=all",), ("image", "exists"), ("rm", "--force", "--ignore", "--time=1")
    ),
    "docker": _of_engine("docker", ("--gpus=all",), ("image", "inspect", "--format=-"), ("rm", "--force")),
    "apptainer": _of_apptainer("apptainer"),
    "singularity": _of_apptainer("singularity"),
    "shifter": Runtime(
        program="shifter",
        run=(),
        bind=("--volume={source}:{target}",),
        read_only=("--volume={source}:{target}:ro",),
        directory=("--workdir={path}",),
        gpus={"nvidia": ("--module=gpu",), "amd": ()},
        image=("--image={image}",),
        present=("shifterimg", "lookup", "{image}"),
        fetch=("shifterimg", "pull", "{image}"),
        identity=("shifterimg", "lookup", "{image}"),
    ),
    "charliecloud": Runtime(
        program="ch-run",
        run=(f"--set-env=PATH={IMAGE_PATH}",),
        bind=("--bind={source}:{target}",),
        directory=("--cd={path}",),
        gpus={"nvidia": (), "amd": ()},  # ch-fromhost puts the libraries into the image
        image=("{image}",),
        before_command=("--",),
    ),
}
"""All runtimes by their names."""


def image_of(runtime: str, image: str) -> str:
    """Return an image as a runtime wants it written: registries are URLs for some, and names for others."""
    if is_path(image):
        return image
    _, mark, rest = image.partition("://")
    if runtime in ("apptainer", "singularity"):
        return image if mark else f"docker://{image}"
    name = rest if mark else image
    return f"docker:{name}" if runtime == "shifter" and not name.startswith("docker:") else name


def argv(
    runtime: str,
    image: str,
    command: Sequence[str],
    *,
    binds: Sequence[Bind] = (),
    variables: Sequence[str] = (),
    gpus: str = "",
    name: str = "",
    options: Sequence[str] = (),
    directory: str = "",
    user: tuple[int, int] | None = None,
    stdin: bool = False,
    memory_mib: int = 0,
    cores: float = 0.0,
) -> list[str]:
    """Return the command line that runs a command in an image.

    Args:
        runtime: Name of the runtime, one of ``TABLE``.
        image: The image, in any form that ``Container`` takes.
        command: The command and its arguments.
        binds: What is seen in the container.
        variables: Names of variables of the starter's environment that the container gets; where a runtime hands the
            whole environment on, these are among them.
        gpus: Kind of accelerators that it gets, of ``DEVICES``; empty: none.
        name: Name of the container, for ``removal``; empty, or where runtimes name none: none.
        options: Further words, such as the user's own; they come last, and so override what Flow gives.
        directory: Working directory in the container; empty: the image's own.
        user: User and group number that it runs as, where the runtime would take the image's; None: leave it so.
        stdin: Whether the standard input is handed on.
        memory_mib: Most memory; 0, or where the runtime has no such limit: no limit.
        cores: Most cores; 0, or likewise: no limit.
    """
    words = TABLE[runtime]
    line = [words.program, *words.run]
    for bind in binds:
        line += _filled(words.read_only if bind.read_only and words.read_only else words.bind, bind)
    for variable in variables:
        line += filled(words.variable, name=variable)
    line += words.gpus[gpus] if gpus else ()
    line += filled(words.named, name=name) if name else []
    line += filled(words.directory, path=directory) if directory else []
    line += filled(words.user, uid=user[0], gid=user[1]) if user is not None else []
    line += words.stdin if stdin else ()
    line += filled(words.memory, mib=memory_mib) if memory_mib else []
    line += filled(words.cores, cores=f"{cores:g}") if cores else []
    return [*line, *options, *filled(words.image, image=image_of(runtime, image)), *words.before_command, *command]


def removal(runtime: str, name: str) -> list[str]:
    """Return the command that ends and removes a container by its name; empty where it ends with its process."""
    return filled(TABLE[runtime].remove, name=name)


def presence(runtime: str, image: str) -> list[str]:
    """Return the command that succeeds where a node has an image; empty: see whether ``image`` is a path there."""
    return filled(TABLE[runtime].present, image=image_of(runtime, image))


def fetching(runtime: str, image: str) -> list[str]:
    """Return the command that brings an image to a node; empty where there is none."""
    return filled(TABLE[runtime].fetch, image=image_of(runtime, image))


def identity(runtime: str, image: str) -> list[str]:
    """Return the command that writes what stands for an image's content; empty where there is none."""
    return filled(TABLE[runtime].identity, image=image_of(runtime, image))


def filled(words: _Words, **fields: object) -> list[str]:
    """Return words with their fields filled in; other braces stay, as engines have templates of their own."""
    return [_one(word, fields) for word in words]


def _filled(words: _Words, bind: Bind) -> list[str]:
    return filled(words, source=bind.source, target=bind.target)


def _one(word: str, fields: Mapping[str, object]) -> str:
    return word.format(**fields) if any(f"{{{name}}}" in word for name in fields) else word
