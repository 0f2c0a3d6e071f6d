"""The shell code that starts the manager of a node in a container. Pure.

The node's own shell does all of it, since the node needs no Python: it takes the first runtime that is there, brings
the image, binds what of Flow's paths exists, hands on variables by name, and removes the container at the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from shlex import quote
from typing import Final

from flow_core.interfaces.container import Container, is_path
from flow_core.remote.container_runtimes import DEVICES, HOST_ONLY, TABLE, Runtime, image_of

VARIABLES: Final = (
    "FLOW_*",
    # what schedulers tell of a job, and of the accelerators that it was given
    "SLURM_*", "PBS_*", "LSB_*", "NSLOTS", "PE_HOSTFILE", "JOB_ID", "_CONDOR_*",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR",
    "OMP_*", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
"""Variables of a job, as patterns of the shell, that its container gets. All others are the image's."""

_OF_THE_NODE: Final = ("FLOW_PYTHON", "FLOW_RUNTIME_PATH", "FLOW_LEFT_ASIDE")
"""Variables of Flow's own that mean the node's Python, and not the image's."""
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """What the container of a manager is to have.

    Attributes:
        container: The image, and what its user wants.
        name: Beginning of its name, unique among all blocks of all runs.
        shared: Paths that it sees and may change, where they are on the node.
        read: Paths that it sees.
        made: The same, made there first.
        gpus: Whether it gets the accelerators of the node.
    """

    container: Container
    name: str = "flow"
    shared: Sequence[str] = ()
    read: Sequence[str] = ()
    made: Sequence[str] = ()
    gpus: bool = False


def container_code(plan: ContainerPlan, inner: str) -> str:
    """Return bash code that runs bash code in a container, and ends with its exit code."""
    candidates = plan.container.candidates()
    programs = [TABLE[name].program for name, _ in candidates]
    missing = f"there is no {programs[0]}" if len(programs) == 1 else f"there is none of {', '.join(programs)}"
    lines = [
        (files("flow_executors.launching") / "run_container.sh").read_text().rstrip(),
        f'flow_name={quote(plan.name)}-"${{HOSTNAME:-node}}"-$$',
        f"flow_inner={quote(inner)}",
        "flow_words=() flow_program='' flow_image='' flow_unset=''",
        f"flow_of_job() {{ case $1 in {'|'.join(VARIABLES)}) ;; *) return 1 ;; esac; }}",
        f"flow_of_node() {{ case $1 in {'|'.join((*_OF_THE_NODE, *HOST_ONLY))}) ;; *) return 1 ;; esac; }}",
    ]
    for name, image in candidates:
        lines += _candidate(plan.container, name, image)
    lines.append(f'[ -n "$flow_program" ] || flow_refuse {quote(missing)}')
    lines.append("flow_bring_image")
    lines += [
        f"flow_give {quote(bind.source)} {quote(bind.target)} {'ro' if bind.read_only else 'rw'}"
        for bind in plan.container.binds
    ]
    lines += [f"mkdir -p {quote(path)} 2>/dev/null; flow_share {quote(path)}" for path in plan.made]
    lines += [f"flow_share {quote(path)}" for path in plan.shared]
    lines += ['flow_share "$PWD"', "flow_share_files", "flow_share_cache"]
    lines += [f"flow_share {quote(path)} ro" for path in plan.read]
    lines += ['export FLOW_IMAGE="$flow_image"', "flow_give_variables"]
    if plan.gpus:
        tests = [f"[ -e {quote(path)} ]; then flow_gpus {kind}" for kind, path in DEVICES.items()]
        lines.append(f"if {'; elif '.join(tests)}; fi")
    # A directory that is not bound would be an error, or not that of the node.
    lines.append('! flow_bindable "$PWD" || flow_in "$PWD"')
    lines.append('flow_run "${flow_begin[@]}" "${flow_words[@]}" "${flow_last[@]}" bash -c "$flow_inner" flow')
    return "\n".join(lines)


def _candidate(container: Container, name: str, image: str) -> list[str]:
    """Return code that takes a runtime if none is taken yet and the node has it."""
    words = TABLE[name]
    written = image_of(name, image)
    known = {"image": quote(written), "name": '"$flow_name"'}
    begin = [*_shell(words.run, {}), *_shell(words.named, known)]
    end = [*map(quote, container.options_for(name)), *_shell(words.image, known), *words.before_command]
    bind = {"source": '"$1"', "target": '"$2"'}
    # What else an image may be, its runtime brings itself.
    present = " ".join(_shell(words.present, known)) or (f"[ -e {quote(written)} ]" if is_path(image) else ":")
    fetch = " ".join(_shell(words.fetch, known)) or f"echo {quote(_NOT_THERE)} >&2; false"
    unset = quote("" if words.variable else " ".join((*HOST_ONLY, *_OF_THE_NODE)))
    lines = [
        f'if [ -z "$flow_program" ] && command -v {words.program} >/dev/null 2>&1; then',
        f"flow_program={words.program} flow_image={quote(written)} flow_unset={unset}",
        f"flow_begin=({' '.join((words.program, *begin))}) flow_last=({' '.join(end)})",
        _function("flow_bind", words.bind, bind),
        _function("flow_bind_read_only", words.read_only or words.bind, bind),
        _function("flow_variable", words.variable, {"name": '"$1"'}),
        _function("flow_in", words.directory, {"path": '"$1"'}),
        f"flow_gpus() {{ case $1 in {' '.join(_gpus(words.gpus))} esac; }}",
        f"flow_present() {{ {present}; }}",
        f"flow_fetch() {{ {fetch}; }}",
        f"flow_remove() {{ {' '.join(_shell(words.remove, known)) or ':'}; }}",
        *_detected(name, words),
        "fi",
    ]
    return lines


def _detected(name: str, words: Runtime) -> list[str]:
    """Return code for what depends on how a runtime was set up on the node."""
    if name == "docker":
        # Of a daemon that is root what the container makes would be root's, too.
        user = " ".join(_shell(words.user, {"uid": '"$EUID"', "gid": '"$(id -g)"'}))
        asked = 'docker info --format "{{.SecurityOptions}}" 2>/dev/null | grep -q rootless'
        return [f'if [ "$EUID" != 0 ] && ! {asked}; then flow_begin+=({user}); fi']
    if name == "charliecloud":
        # It runs for users with names only. Without a layer to write to, targets of binds must be in the image.
        return [
            'export USER="${USER:-$(id -un)}"',
            "! ch-run --help 2>&1 | grep -q -e --write-fake || flow_begin+=(--write-fake)",
        ]
    return []


_NOT_THERE = "it is not there"


def _gpus(words: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"{kind}) flow_words+=({' '.join(_shell(words[kind], {}))}) ;;" for kind in DEVICES]


def _function(name: str, words: Sequence[str], fields: Mapping[str, str]) -> str:
    return f"{name}() {{ flow_words+=({' '.join(_shell(words, fields))}); }}"


def _shell(words: Sequence[str], fields: Mapping[str, str]) -> list[str]:
    """Return words as shell code, with fields replaced by code that stands for their values."""
    return [_code(word, fields) for word in words]


def _code(word: str, fields: Mapping[str, str]) -> str:
    pieces = _FIELD.split(word)  # text and name in turn
    made = [
        (fields[piece] if piece in fields else quote(f"{{{piece}}}")) if at % 2 else quote(piece) if piece else ""
        for at, piece in enumerate(pieces)
    ]
    return "".join(made)
