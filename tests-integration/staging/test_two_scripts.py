"""Two scripts started in one directory, with one working directory: files of one name never meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from staging_servers import Page

SCRIPT = """
import sys
import flow_core as flow
from flow_core import File
from flow_core.executors.threads import ThreadPoolExecutor
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import HTTPInTaskStaging, ZipFileStaging
from flow_staging.http import HTTPSeparateTaskStaging

kind, url, archive = sys.argv[1:]

@flow.python_app
def read(inputs=(), outputs=()):
    text = open(inputs[0]).read()
    for output in outputs:
        open(output, "w").write(text)
    return text

if kind == "threads":
    executor = ThreadPoolExecutor(storage_access=[HTTPSeparateTaskStaging(), ZipFileStaging()], working_dir="wd")
else:
    executor = HighThroughputExecutor(
        max_workers=2, provider=LocalProvider(init_blocks=1, max_blocks=1), working_dir="wd",
        storage_access=[HTTPInTaskStaging(), ZipFileStaging()],
    )
with flow.load(flow.Config(executors=[executor])):
    futures = [read(inputs=[File(url)], outputs=[File(f"zip:{archive}/out.csv")]) for n in range(20)]
    print("".join(future.result(100) for future in futures))
    [future.outputs[0].result(100) for future in futures]
"""


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["threads", "nodes"])
def test_two_scripts_in_one_directory_have_files_of_their_own(web, tmp_path, kind):
    (tmp_path / "wd").mkdir()
    (tmp_path / "wd" / "out.csv").write_text("the user's own")
    for name in "AB":
        web.pages[f"/{name}/out.csv"] = Page(name.encode())
    scripts = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, kind, web.url(f"/{name}/out.csv"), f"{name}.zip"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "AB"
    ]
    said = [script.communicate(timeout=120)[0].strip() for script in scripts]
    assert said == ["A" * 20, "B" * 20]
    assert (tmp_path / "wd" / "out.csv").read_text() == "the user's own"
    assert sorted(path.name for path in Path(tmp_path / "wd").iterdir()) == ["out.csv"]
