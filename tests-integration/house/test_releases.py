"""Versions, ranges, changelogs and what goes into wheels are in order; each mistake is found."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import release

ROOT = Path(__file__).resolve().parents[2]


def test_the_distributions_are_in_order() -> None:
    assert release.problems(history=False) == []


def test_what_has_changed_since_a_release_has_a_version_of_its_own() -> None:
    found = release.problems()
    if found:  # a merge may do it at any time; `make release` refuses it
        pytest.skip("before the next release: " + "; ".join(found))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a repository with what the check reads of the distributions."""
    shutil.copy(ROOT / "LICENSE", tmp_path)
    for one in release.distributions().values():
        folder = tmp_path / "packages" / one.name
        package = folder / "src" / one.package.name
        package.mkdir(parents=True)
        for name in ("LICENSE", "pyproject.toml", "CHANGELOG.md"):
            shutil.copy(one.folder / name, folder)
        for name in ("__init__.py", "py.typed"):
            shutil.copy(one.package / name, package)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    who = [
        "-c",
        "user.name=Tester",
        "-c",
        "user.email=tester@localhost",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    ]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, timeout=30, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "state")


def edit(path: Path, pattern: str, new: str) -> None:
    text, times = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE)
    assert times == 1, f"{pattern} is not in {path}"
    path.write_text(text)


@pytest.mark.parametrize(
    ("file", "pattern", "new", "problem"),
    [
        ("flow-core/LICENSE", r"Apache", "Other", "flow-core: LICENSE is not that of the repository"),
        ("flow-core/pyproject.toml", r"The Flow developers", "Me", "flow-core: authors is not"),
        ("flow-core/CHANGELOG.md", r"^## \S+ ", "## 9.9.9 ", "flow-core: the changelog begins with 9.9.9"),
        ("flow-core/CHANGELOG.md", r"^## .*$", "## Today", "flow-core: the changelog"),
        ("flow-core/src/flow_core/__init__.py", r'^(__version__) = ".*"', r'\1 = "9.0.0"', "does not admit 9.0.0"),
        ("flow-viz/pyproject.toml", r'"flow-monitor[^"]*"', '"flow-monitor"', "flow-viz: flow-monitor is no range"),
        ("flow-viz/pyproject.toml", r'"flow-monitor[^"]*"', '"flow-monitor>=0.1"', "is no range"),
        ("flow-viz/pyproject.toml", r'"plotly[^"]*"', '"plotly"', "flow-viz: plotly has no lowest release"),
        ("flow/pyproject.toml", r"flow-providers\[ssh\]", "flow-providers[smoke]", "flow-providers has no extra smoke"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_distribution_is_found(copy: Path, file: str, pattern: str, new: str, problem: str) -> None:
    edit(copy / "packages" / file, pattern, new)
    assert problem in "\n".join(release.problems(copy))


def test_what_was_released_is_not_changed_without_a_new_version(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "distributions", lambda root=copy, read=release.distributions: read(root))
    for key, value in (("AUTHOR", "Tester"), ("COMMITTER", "Tester")):
        monkeypatch.setenv(f"GIT_{key}_NAME", value)
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "tester@localhost")
    for path in copy.glob("packages/*/CHANGELOG.md"):  # one open section, whatever there is now
        heading = next(line for line in path.read_text().splitlines() if line.startswith("## "))
        version = heading.split()[1]
        path.write_text(f"# Changelog\n\n## {version} (unreleased)\n\n- Something.\n")
    commit(copy)
    assert release.put_tags() == []
    assert release.put_dates(["flow-core", "flow-providers"]) == ["flow-core", "flow-providers"]
    with pytest.raises(release.Refused, match="not committed"):
        release.put_tags()
    commit(copy)
    made = release.put_tags()
    assert [tag.rpartition("-")[0] for tag in made] == ["flow-core", "flow-providers"]
    assert release.put_tags() == []
    said = subprocess.run(
        ["git", "cat-file", "tag", made[0]], cwd=copy, capture_output=True, text=True, timeout=30
    ).stdout
    assert said.endswith("\n\n".join(("", made[0].replace("-core-", "-core "), "- Something.\n")))
    core = release.distributions()["flow-core"]
    assert release.last_release(core) == (core.version, core.tag)
    assert release.problems(copy) == []

    source = copy / "packages" / "flow-core" / "src" / "flow_core" / "__init__.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert "begin the next version" in "\n".join(release.problems(copy))
    log = copy / "packages" / "flow-core" / "CHANGELOG.md"
    log.write_text(log.read_text() + "- Slipped in by a merge,\n  in two lines.\n")
    assert "is not as released" in "\n".join(release.problems(copy))

    assert release.open_sections() == ["flow-core"]
    assert release.problems(copy) == []
    assert release.open_sections() == []
    then, now = (release.sections(log.read_text())[str(version)] for version in (core.version, following(core.version)))
    assert "Slipped" not in then
    assert now == f"## {following(core.version)} (unreleased)\n\n- Slipped in by a merge,\n  in two lines."
    log.write_text(log.read_text() + "- Again.\n")
    assert release.open_sections() == ["flow-core"]
    assert "- Again.\n- Slipped in" in log.read_text()
    assert release.problems(copy) == []


def following(version: object) -> str:
    first, second, third = str(version).split(".")
    return f"{first}.{second}.{int(third) + 1}"


def test_the_last_release_is_found_without_tags_by_the_date_in_the_changelog(copy: Path) -> None:
    log = copy / "packages" / "flow-core" / "CHANGELOG.md"
    log.write_text("# Changelog\n\n## 0.0.2 (unreleased)\n\n- Open.\n\n## 0.0.1 (2020-02-02)\n\n- First.\n")
    commit(copy)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=copy, capture_output=True, text=True, check=True, timeout=30
    )
    commit(copy)
    core = release.Distribution(copy / "packages" / "flow-core")
    last = release.last_release(core)
    assert last == (release.Version("0.0.1"), head.stdout.strip())
    # the code there is of another version: the commit of the release itself is not in this history
    with pytest.raises(release.Refused, match=r"flow-core 0\.0\.1 is neither a tag nor in the history"), \
         release.tree_of(*last, "flow-core"):  # fmt: skip
        pass


def test_the_extras_in_the_page_on_installing_are_those_of_the_distribution() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE))
    assert told == set(release.distributions()["flow"].project["optional-dependencies"])
