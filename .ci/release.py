"""Release what is to be released: check, build, try from a local index folder, tag. See docs/releasing.md.

    python .ci/release.py check                the rules that each commit keeps
    python .ci/release.py open                 begin the next version of what has changed since its last release
    python .ci/release.py date [NAME ...]      put today's date into the open sections of changelogs
    python .ci/release.py build [--released]   wheels and source archives of all distributions, in dist/
    python .ci/release.py try                  install flow from dist/ alone, run the quickstart from there
    python .ci/release.py tag                  tag what is dated and has no tag yet
    python .ci/release.py release              all of it but the dates: what `make release` does

A distribution's version is ``__version__`` of its package; a release is the tag NAME-VERSION. With ``--released``, a
distribution that has an open section is built from its last release, since that is what users have beside the new ones.
Needs git, uv, packaging and twine.
"""

from __future__ import annotations

import argparse
import datetime
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
AUTHOR = "The Flow developers"
FOR_TESTS = ("flow-testing",)
"""Distributions that flow does not require."""
BUILD_S = 300
INSTALL_S = 600
RUN_S = 300
_SECTION = re.compile(r"^## (\S+) \((unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


class Refused(Exception):
    """A release that cannot be made, with the reason."""


@dataclass(frozen=True)
class Distribution:
    """One folder of packages/, as it lies in a tree."""

    folder: Path

    @property
    def name(self) -> str:
        """Its name on an index."""
        return self.folder.name

    @property
    def package(self) -> Path:
        """The folder of the package that is imported."""
        return self.folder / "src" / self.name.replace("-", "_")

    @cached_property
    def version(self) -> Version:
        """The version that this tree is, or will be."""
        found = _VERSION.search((self.package / "__init__.py").read_text())
        if found is None:
            raise Refused(f"{self.name}: no __version__ in {self.package}/__init__.py")
        return Version(found[1])

    @cached_property
    def project(self) -> dict[str, object]:
        """The table [project]."""
        found: dict[str, object] = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        return found

    @cached_property
    def changelog(self) -> str:
        """The text of the changelog."""
        return (self.folder / "CHANGELOG.md").read_text()

    @property
    def dated(self) -> bool:
        """Whether the newest section of the changelog has a date."""
        found = _SECTION.search(self.changelog)
        return found is not None and found[2] != "unreleased"

    @property
    def tag(self) -> str:
        """The name of the tag of this version."""
        return f"{self.name}-{self.version}"

    def requirements(self) -> list[tuple[str, Requirement]]:
        """Return what it requires, each with its extra, empty for what is always needed."""
        extras: dict[str, list[str]] = self.project.get("optional-dependencies", {})  # type: ignore[assignment]
        always: list[str] = self.project.get("dependencies", [])  # type: ignore[assignment]
        lists = [("", always), *extras.items()]
        return [(extra, Requirement(text)) for extra, texts in lists for text in texts]


def distributions(root: Path = ROOT) -> dict[str, Distribution]:
    """Return the distributions of a tree by name."""
    return {path.name: Distribution(path) for path in sorted((root / "packages").iterdir()) if path.is_dir()}


def sections(changelog: str) -> dict[str, str]:
    """Return the sections of a changelog by version: the heading and all below."""
    starts = list(_SECTION.finditer(changelog))
    ends = [*(start.start() for start in starts), len(changelog)][1:]
    return {start[1]: changelog[start.start() : end].strip() for start, end in zip(starts, ends, strict=True)}


# -- releases that there were


def git(*arguments: str) -> str:
    """Return what git says. Raises CalledProcessError."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def tags(name: str) -> dict[Version, str]:
    """Return the tags of a distribution by version, the newest last; none where there is no repository."""
    try:
        found = git("tag", "--list", f"{name}-[0-9]*").split()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(sorted((Version(tag.removeprefix(f"{name}-")), tag) for tag in found))


def last_release(one: Distribution) -> tuple[Version, str] | None:
    """Return version and commit of the last release: of its tag; without tags, of the date in the changelog."""
    known = tags(one.name)
    if known:
        return list(known.items())[-1]
    for version, text in sections(one.changelog).items():
        heading = text.partition("\n")[0]
        if "(unreleased)" in heading:
            continue
        place = f"packages/{one.name}/CHANGELOG.md"
        try:
            commits = git("log", "--format=%H", f"-S{heading}", "--reverse", "--", place).split()
        except (OSError, subprocess.CalledProcessError):
            return None
        return (Version(version), commits[0]) if commits else None
    return None


@contextmanager
def tree_of(version: Version, revision: str, name: str) -> Iterator[Distribution]:
    """Give a release of a distribution, which is that of a revision, in a directory of its own.

    Raises Refused where the revision is of another version: the history of a clone may lack the release itself.
    """
    with tempfile.TemporaryDirectory(prefix="flow-release-") as folder:
        packed = subprocess.run(
            ["git", "archive", revision, f"packages/{name}"], cwd=ROOT, capture_output=True, timeout=60, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=packed, timeout=60, check=True)
        found = Distribution(Path(folder) / "packages" / name)
        if found.version != version:
            raise Refused(f"{name} {version} is neither a tag nor in the history of this clone: git fetch --tags")
        yield found


# -- check


def problems(root: Path = ROOT, *, history: bool = True) -> list[str]:
    """Return what is wrong with the distributions, one line each; with ``history`` also what was changed unsaid."""
    ours = distributions(root)
    found: list[str] = []
    for one in ours.values():
        told = [*_own(one, root), *_ranges(one, ours), *(_history(one) if history else ())]
        found += [f"{one.name}: {problem}" for problem in told]
    return found


def _own(one: Distribution, root: Path) -> Iterator[str]:
    if (one.folder / "LICENSE").read_bytes() != (root / "LICENSE").read_bytes():
        yield "LICENSE is not that of the repository"
    if not (one.package / "py.typed").is_file():
        yield "no py.typed in the package"
    if [author.get("name") for author in one.project.get("authors", [])] != [AUTHOR]:  # type: ignore[attr-defined]
        yield f"authors is not {AUTHOR!r}"
    heading = _SECTION.search(one.changelog)
    if heading is None:
        yield "the changelog has no section '## VERSION (unreleased)' or '## VERSION (YYYY-MM-DD)'"
    elif len(set(starts := [start[1] for start in _SECTION.finditer(one.changelog)])) < len(starts):
        yield f"the changelog has two sections of one version: {', '.join(starts)}"
    elif Version(heading[1]) != one.version:
        yield f"the changelog begins with {heading[1]}, and the package is {one.version}"
    if len(re.findall(r"\(unreleased\)$", one.changelog, re.MULTILINE)) > 1:
        yield "more than one section of the changelog is unreleased"


def _ranges(one: Distribution, ours: dict[str, Distribution]) -> Iterator[str]:
    for extra, needed in one.requirements():
        other = ours.get(canonicalize_name(needed.name))
        if other is None:
            if not needed.specifier:
                yield f"{needed} has no lowest release"
            continue
        if {spec.operator for spec in needed.specifier} != {">=", "<"}:
            yield f"{needed} is no range: write {needed.name}>={other.version},<NEXT"
        elif other.version not in needed.specifier:
            yield f"{needed} does not admit {other.version}, which is in this tree"
        unknown = needed.extras - set(other.project.get("optional-dependencies", {}))  # type: ignore[call-overload]
        if unknown:
            yield f"extra {extra!r} names {needed}, and {other.name} has no extra {', '.join(sorted(unknown))}"


def _history(one: Distribution) -> Iterator[str]:
    known = tags(one.name)
    now = sections(one.changelog)
    for version, tag in known.items():
        then = sections(git("show", f"{tag}:packages/{one.name}/CHANGELOG.md")).get(str(version))
        if then != now.get(str(version)):
            yield f"section {version} of the changelog is not as released: `release.py open` mends it"
    if not known:
        return
    last, tag = list(known.items())[-1]
    if one.version < last:
        yield f"the version is {one.version}, but {last} was released"
    changed = _changed_since(tag, one.name)
    if one.version == last and changed:
        yield f"{changed[0]} is not as released in {tag}: begin the next version by `release.py open`"


def _changed_since(tag: str, name: str) -> list[str]:
    """Return the files of a distribution that are not as at a revision, as far as they are built."""
    places = [f"packages/{name}/{part}" for part in ("src", "pyproject.toml")]
    return git("diff", "--name-only", tag, "--", *places).splitlines()


# -- open


def open_sections() -> list[str]:
    """Begin the next version of what has changed since its last release; return what was begun or mended.

    The third part of the version is raised; raise the second one by hand where `docs/releasing.md` says so. Lines that
    were put into a section that was released, as a merge may do, go to the open one.
    """
    done = []
    for one in distributions().values():
        last = last_release(one)
        if last is None:
            continue
        version, revision = last
        then = sections(git("show", f"{revision}:packages/{one.name}/CHANGELOG.md")).get(str(version), "")
        now = sections(one.changelog)[str(version)]
        strayed = [line for line in now.splitlines() if line not in then.splitlines()]
        # a version that is dated and has no tag yet is the next one already
        begins = one.dated and one.version == version and bool(strayed or _changed_since(revision, one.name))
        if not begins and not strayed:
            continue
        text = one.changelog.replace(now, then)
        if begins:
            next_one = f"{version.major}.{version.minor}.{version.micro + 1}"
            place = text.index("## ")
            text = f"{text[:place]}## {next_one} (unreleased)\n\n{text[place:]}"
            source = one.package / "__init__.py"
            source.write_text(_VERSION.sub(f'__version__ = "{next_one}"', source.read_text()))
        head, heading, rest = text.partition("(unreleased)\n\n")
        lines = "".join(f"{line}\n" for line in strayed if line)
        gap = "\n" if begins and lines else ""
        (one.folder / "CHANGELOG.md").write_text(f"{head}{heading}{lines}{gap}{rest}")
        done.append(one.name)
    return done


# -- date


def put_dates(names: list[str]) -> list[str]:
    """Put today's date into the open sections of changelogs; return the names of those."""
    ours = distributions()
    unknown = set(names) - set(ours)
    if unknown:
        raise Refused(f"no distribution is called {', '.join(sorted(unknown))}: there are {', '.join(ours)}")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    done = []
    for one in ours.values():
        if one.dated or (names and one.name not in names):
            continue
        text = one.changelog.replace("(unreleased)", f"({today})", 1)
        (one.folder / "CHANGELOG.md").write_text(text)
        done.append(one.name)
    return done


# -- build


def build(into: Path, *, released: bool) -> None:
    """Build wheels and source archives of all distributions into an empty folder, and look into them."""
    shutil.rmtree(into, ignore_errors=True)
    for one in distributions().values():
        if not released or (one.dated and one.version not in tags(one.name)):
            build_one(one, into)
            continue
        last = last_release(one)
        if last is None:
            raise Refused(
                f"{one.name} was never released, and its changelog has no date: run `release.py date {one.name}`"
            )
        with tree_of(*last, one.name) as then:
            build_one(then, into)
    wrong = [f"{path.name}: {problem}" for path in sorted(into.iterdir()) for problem in contents(path)]
    if wrong:
        raise Refused("\n".join(wrong))
    _run([sys.executable, "-m", "twine", "check", "--strict", *map(str, archives(into))], BUILD_S)


def build_one(one: Distribution, into: Path) -> None:
    """Build the source archive of a distribution, and the wheel from that."""
    _run([uv(), "build", "--quiet", "--out-dir", str(into), str(one.folder)], BUILD_S)


def archives(folder: Path) -> list[Path]:
    """Return the wheels and source archives in a folder."""
    return sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])


def metadata(wheel: Path) -> email.message.Message:
    """Return the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def contents(path: Path) -> Iterator[str]:
    """Yield what is missing in a wheel or source archive, or does not belong there."""
    name = path.name.partition("-")[0]
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        told = metadata(path)
        if told["Author"] != AUTHOR or told["License-Expression"] != "Apache-2.0" or not told.get_all("Classifier"):
            yield "author, license or classifiers are missing in the metadata"
        needed = [f"{name}/__init__.py", f"{name}/py.typed", "licenses/LICENSE"]
        strange = [member for member in members if member.partition("/")[0] != name and ".dist-info/" not in member]
    elif path.suffix == ".gz":
        with tarfile.open(path) as packed:
            members = packed.getnames()
        needed = ["/LICENSE", "/README.md", "/CHANGELOG.md", "/pyproject.toml", f"/src/{name}/py.typed", "/tests"]
        strange = [member for member in members if "__pycache__" in member or "/runinfo" in member]
    else:
        return  # the folder's own .gitignore
    yield from (f"no {part} in it" for part in needed if not any(part in member for member in members))
    yield from (f"{member} does not belong in it" for member in strange)


# -- try


def try_out(folder: Path) -> None:
    """Install flow from a folder, without an index for any name of ours, and run the quickstart from there."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise Refused(f"no wheels in {folder}: run `release.py build` first")
    with tempfile.TemporaryDirectory(prefix="flow-release-") as place:
        python = install(wheels, Path(place))
        bin_, work = python.parent, Path(place) / "work"
        work.mkdir()
        shutil.copy(ROOT / "examples" / "quickstart" / "quickstart.py", work)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment["PATH"] = f"{bin_}{os.pathsep}{environment['PATH']}"
        names = [wheel.name.partition("-")[0] for wheel in wheels]
        where = "; ".join(f"import {name}; print({name}.__file__)" for name in names)
        for command in (
            [str(python), "-c", where],
            [str(python), "quickstart.py", "--modules", "40"],
            [str(bin_ / "flow"), "--help"],
            [str(bin_ / "flow-providers"), "--help"],
            [str(bin_ / "flow-visualize"), "--help"],
        ):
            told = _run(command, RUN_S, cwd=work, env=environment)
            if command[1] == "-c" and any(not line.startswith(place) for line in told.splitlines()):
                raise Refused(f"something of ours came from elsewhere:\n{told}")


def install(wheels: list[Path], place: Path) -> Path:
    """Make an environment with wheels of ours, and of an index only what is not ours; return its python.

    What is not ours is installed first, from the index; then ours by their names from the wheels' folder alone, so that
    ranges are kept and no name of ours is looked up anywhere else.
    """
    ours = {str(metadata(wheel)["Name"]): str(metadata(wheel)["Version"]) for wheel in wheels}
    needed = [Requirement(text) for wheel in wheels for text in metadata(wheel).get_all("Requires-Dist", [])]
    others = {
        str(one) for one in needed
        if canonicalize_name(one.name) not in ours and (one.marker is None or one.marker.evaluate({"extra": ""}))
    }  # fmt: skip
    _run([uv(), "venv", "--quiet", "--python", sys.executable, str(place / "venv")], INSTALL_S)
    python = place / "venv" / "bin" / "python"
    pip = [uv(), "pip", "install", "--quiet", "--python", str(python)]
    _run([*pip, *sorted(others)], INSTALL_S)
    folder = str(wheels[0].parent)
    of_folder = [*pip, "--no-index", "--no-cache", "--find-links", folder]  # uncached: versions repeat
    _run([*of_folder, f"flow=={ours['flow']}"], INSTALL_S)
    there = set(_run([uv(), "pip", "list", "--python", str(python), "--format", "freeze"], INSTALL_S).split())
    missing = {f"{name}=={version}" for name, version in ours.items() if name not in FOR_TESTS} - there
    if missing:
        raise Refused(f"flow was installed without {', '.join(sorted(missing))}")
    _run([*of_folder, *(f"{name}=={ours[name]}" for name in FOR_TESTS)], INSTALL_S)
    _run([uv(), "pip", "check", "--python", str(python)], INSTALL_S)
    return python


# -- tag


def put_tags() -> list[str]:
    """Tag each distribution that is dated and has no tag; return the tags."""
    if git("status", "--porcelain"):
        raise Refused("there are changes that are not committed: a tag would not be what was built")
    made = []
    for one in distributions().values():
        if one.dated and one.version not in tags(one.name):
            text = sections(one.changelog)[str(one.version)].partition("\n")[2].strip()
            git(
                "tag", "--annotate", one.tag, "--cleanup=verbatim", "--message", f"{one.name} {one.version}\n\n{text}\n"
            )
            made.append(one.tag)
    return made


# --


def uv() -> str:
    """Return the path of uv, which is beside this Python or in the PATH."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise Refused("uv is needed: pip install uv")
    return found


def _run(command: list[str], timeout_s: float, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    print("+", *command, flush=True)
    told = subprocess.PIPE
    done = subprocess.run(
        command, cwd=cwd, env=env, timeout=timeout_s, check=False, text=True, stdout=told, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise Refused(f"{done.stdout}\n{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def _check() -> None:
    found = problems()
    if found:
        raise Refused("\n".join(found))


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("check")
    actions.add_parser("date").add_argument("names", nargs="*", metavar="NAME")
    actions.add_parser("build").add_argument("--released", action="store_true")
    for name in ("open", "try", "tag", "release", "rehearse"):
        actions.add_parser(name)
    given = parser.parse_args()
    try:
        if given.action in ("check", "release", "rehearse"):
            _check()
        if given.action == "open":
            print("open:", *open_sections())
        if given.action == "date":
            print("dated:", *put_dates(given.names))
        if given.action in ("build", "release", "rehearse"):
            build(DIST, released=given.action == "release" or getattr(given, "released", False))
        if given.action in ("try", "release", "rehearse"):
            try_out(DIST)
        if given.action in ("tag", "release"):
            made = put_tags()
            print("tagged:", *made) if made else print("nothing to tag: no version is dated that has no tag")
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
