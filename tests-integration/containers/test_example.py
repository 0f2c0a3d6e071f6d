"""The images of ``examples/containers`` are built, and its script runs in them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from container_services import by_script, run

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "containers"


def said_by_the_script(directory: Path, *images: str) -> str:
    """Return what the script prints; it lies alone, so that the applications can come from their images only."""
    shutil.copy(EXAMPLE / "two_images.py", directory)
    return run(sys.executable, "two_images.py", *images, cwd=directory)


def test_the_example_runs_in_the_images_of_its_dockerfile(image: str, tmp_path: Path) -> None:
    names = [f"localhost/flow-test-example:app{number}-{image[-6:]}" for number in (1, 2)]
    try:
        for number, name in enumerate(names, start=1):
            words = ["--build-arg", f"BASE={image}", "--build-arg", f"APP=app{number}", "--tag", name]
            run("podman", "build", "--quiet", *words, str(EXAMPLE), cwd=tmp_path)
        assert said_by_the_script(tmp_path, *names) == "[2, 4, 6] [12, 14, 16]\n"
    finally:
        run("podman", "rmi", "--force", *names, cwd=tmp_path)


def test_the_example_runs_in_the_images_of_its_apptainer_definition(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_script("apptainer", "run", "/usr/bin/apptainer", "--version")
    by_script("apptainer", "commands", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    images = [tmp_path / f"app{number}.sif" for number in (1, 2)]
    for image in images:
        given = f"BOOTSTRAP=localimage,BASE={root},APP={image.stem}"
        run(
            "apptainer",
            "build",
            "--mksquashfs-args",
            "-noI -noD -noF",
            "--build-arg",
            given,
            str(image),
            str(EXAMPLE / "app.def"),
            cwd=EXAMPLE,
        )
    assert said_by_the_script(tmp_path, *map(str, images)) == "[2, 4, 6] [12, 14, 16]\n"
