"""The record of a container: image, runtime, binds and options, for a pool of workers or for one task. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flow_core.errors import ConfigurationError

RUNTIMES: Final = ("podman", "docker", "apptainer", "singularity", "shifter", "charliecloud")
"""Names of the runtimes, in the order in which ``auto`` prefers them."""

AUTO: Final = "auto"
_OF_FILES: Final = ("apptainer", "singularity", "charliecloud")
_OF_SCHEMES: Final = ("apptainer", "singularity")
_FILE_ENDINGS: Final = (".sif", ".sqfs", ".squashfs", ".img")
_MODES: Final = ("ro", "rw")


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of the node that is seen in a container.

    Attributes:
        source: Absolute path on the node.
        target: Absolute path in the container.
        read_only: Whether the container cannot write there.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, init=False)
class Container:
    """An image, and how a container of it is started. Hashable, picklable; checked when it is made.

    Attributes:
        images: Runtime and image, in the order in which they are tried; the runtime ``auto`` stands for all that can
            run such an image.
        binds: Paths of the node that are seen in the container, beside those that Flow itself needs there.
        options: Runtime and further words of its command line; the runtime ``auto`` stands for all.
        python: Python of the image; None: the first with Flow, or of the script's version, on the image's ``PATH``.
        keep: Whether a worker keeps the container of a task for later tasks of its kind.
    """

    images: tuple[tuple[str, str], ...]
    binds: tuple[Bind, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]
    python: str | None
    keep: bool

    def __init__(
        self,
        image: str | Mapping[str, str],
        runtime: str = AUTO,
        *,
        binds: Sequence[str] = (),
        options: Sequence[str] | Mapping[str, Sequence[str]] = (),
        python: str | None = None,
        keep: bool = False,
    ) -> None:
        """Check the options and keep them.

        Args:
            image: Name of an image, path of an image's file or directory, or URL of one; or a dict of such by runtime,
                for sites that differ: the first runtime that a node has is taken.
            runtime: ``podman``, ``docker``, ``apptainer``, ``singularity``, ``shifter`` or ``charliecloud``; ``auto``:
                the first that a node has, of those that can run such an image.
            binds: ``PATH``, ``SOURCE:TARGET`` or ``SOURCE:TARGET:ro`` of each further path that the container sees.
            options: Further words of the runtime's command line, such as ``["--memory=4g"]``; or a dict of such lists
                by runtime.
            python: Python of the image, a command or a path; None: it is looked for.
            keep: Of containers of tasks: keep a container for later tasks with the same image, binds and limits,
                instead of starting one for each. What a task leaves in it, such as files and processes, the next one
                finds.

        Raises:
            ConfigurationError: one of these is impossible.
        """
        object.__setattr__(self, "images", tuple(_images(image, runtime)))
        object.__setattr__(self, "binds", tuple(map(_bind, _texts("binds", binds))))
        object.__setattr__(self, "options", tuple(_options(options)))
        if python is not None and (not isinstance(python, str) or not python.strip()):
            raise ConfigurationError(f"Container: python must be a command or a path in the image, not {python!r}")
        object.__setattr__(self, "python", python)
        if not isinstance(keep, bool):
            raise ConfigurationError(f"Container: keep must be True or False, not {keep!r}")
        object.__setattr__(self, "keep", keep)
        for name, _ in self.options:
            if name != AUTO and name not in [known for known, _ in self.candidates()]:
                raise ConfigurationError(
                    f"Container: options are given for {name!r}, which never runs it: its runtimes are "
                    f"{', '.join(known for known, _ in self.candidates())}"
                )

    def __repr__(self) -> str:
        words = [repr(self.images[0][1] if len(self.images) == 1 else dict(self.images))]
        if len(self.images) == 1 and self.images[0][0] != AUTO:
            words.append(f"runtime={self.images[0][0]!r}")
        if self.binds:
            words.append(f"binds={[written(bind) for bind in self.binds]!r}")
        if self.options:
            general = dict(self.options)
            given: object = {name: list(value) for name, value in self.options}
            words.append(f"options={list(general[AUTO]) if [*general] == [AUTO] else given!r}")
        if self.python is not None:
            words.append(f"python={self.python!r}")
        if self.keep:
            words.append("keep=True")
        return f"Container({', '.join(words)})"

    def candidates(self) -> tuple[tuple[str, str], ...]:
        """Return runtimes and their images, in the order in which a node tries them."""
        if [name for name, _ in self.images] != [AUTO]:
            return self.images
        image = self.images[0][1]
        return tuple((name, image) for name in able(image))

    def options_for(self, runtime: str) -> tuple[str, ...]:
        """Return the further words of a runtime's command line."""
        given = dict(self.options)
        return given.get(runtime, given.get(AUTO, ()))


def able(image: str) -> tuple[str, ...]:
    """Return the runtimes that can run an image of this form: a path, a URL, or a name in a registry."""
    if is_path(image):
        return _OF_FILES
    scheme, mark, _ = image.partition("://")
    if mark and scheme != "docker":
        return _OF_SCHEMES
    return RUNTIMES


def is_path(image: str) -> bool:
    """Tell whether an image is a file or a directory of the node."""
    return image.startswith(("/", "./", "../")) or image.endswith(_FILE_ENDINGS)


def written(bind: Bind) -> str:
    """Return a bind as its user writes it."""
    if bind.source == bind.target and not bind.read_only:
        return bind.source
    return f"{bind.source}:{bind.target}{':ro' if bind.read_only else ''}"


def _images(image: object, runtime: object) -> Iterator[tuple[str, str]]:
    if isinstance(image, Mapping):
        if runtime != AUTO:
            raise ConfigurationError(
                f"Container: runtime={runtime!r} beside images by runtime {dict(image)!r}: give one image, or leave "
                "runtime out"
            )
        if not image:
            raise ConfigurationError("Container: image={} names no image")
        for name, one in image.items():
            yield _known(name), _image(one)
        return
    name = runtime if runtime == AUTO else _known(runtime)
    text = _image(image)
    if name != AUTO and name not in able(text):
        raise ConfigurationError(f"Container: {name} cannot run {text!r}: {' and '.join(able(text))} can")
    yield str(name), text


def _known(runtime: object) -> str:
    if isinstance(runtime, str) and runtime in RUNTIMES:
        return runtime
    raise ConfigurationError(f"Container: runtime {runtime!r} is unknown: give one of {', '.join(RUNTIMES)}, or 'auto'")


def _image(image: object) -> str:
    if isinstance(image, os.PathLike):
        image = os.fspath(image)
    if isinstance(image, str) and image.startswith("~"):
        raise ConfigurationError(f"Container: image={image!r}: write the path out, the node's home may be another")
    # A word that begins with a dash would be an option of the runtime.
    if isinstance(image, str) and image and not image.startswith("-") and not set(image) & set(" \t\n\0"):
        return image
    raise ConfigurationError(f"Container: image must be the name, path or URL of an image, not {image!r}")


def _texts(option: str, value: object) -> Sequence[str]:
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [None]
    texts = [one for one in given if isinstance(one, str) and "\0" not in one]
    if len(texts) == len(given):
        return texts
    raise ConfigurationError(f"Container: {option} must be a list of texts, not {value!r}")


def _bind(text: str) -> Bind:
    source, *rest = text.split(":")
    target = rest[0] if rest else source
    mode = rest[1] if len(rest) > 1 else "rw"
    # Commas part binds on the command line of apptainer.
    if len(rest) > 2 or mode not in _MODES or "," in text or not source.startswith("/") or not target.startswith("/"):
        raise ConfigurationError(
            f"Container: binds={text!r} is none: write PATH, SOURCE:TARGET or SOURCE:TARGET:ro, with absolute paths "
            "that have no colon and no comma"
        )
    return Bind(source, target, mode == "ro")


def _options(options: object) -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(options, Mapping):
        for name, words in options.items():
            yield _known(name), tuple(_texts("options", words))
    elif words := tuple(_texts("options", options)):
        yield AUTO, words
