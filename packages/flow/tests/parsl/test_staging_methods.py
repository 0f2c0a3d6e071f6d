"""Staging methods of Parsl programs."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor as Pool
from pathlib import Path
from typing import Any

import pytest

import flow.compat.parsl as parsl
from flow.compat.parsl.adapters.staging import Staging
from flow.compat.parsl.config import Config
from flow.compat.parsl.executors import ThreadPoolExecutor
from flow_core.errors import ConfigurationError
from flow_core.files import File


class InSeparateTask(Staging):
    """Writes what is asked for, by a thread, and notes the kernel that it was given."""

    seen: Any = None

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "word"

    def stage_in(self, dm: Any, executor: str, file: Any, parent_fut: Future[Any] | None) -> Future[Any]:
        self.seen = dm.dfk
        with Pool(1) as pool:
            return pool.submit(Path(file.local_path).write_text, file.filename)


class InTask(Staging):
    """Writes it where the task runs."""

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "word"

    def replace_task(self, dm: Any, executor: str, file: Any, func: Any) -> Any:
        def brought(*args: Any, **kwargs: Any) -> Any:
            Path(file.local_path).write_text(file.filename)
            return func(*args, **kwargs)

        return brought


@parsl.python_app
def read(inputs: Any = ()) -> str:
    from pathlib import Path

    return Path(inputs[0].filepath).read_text()


@pytest.mark.parametrize("kind", [InSeparateTask, InTask])
def test_a_method_of_the_programs_own_brings_files_in(kind: type[Staging], tmp_path: Path) -> None:
    method = kind()
    executor = ThreadPoolExecutor(storage_access=[method])
    with parsl.load(Config(executors=[executor], run_dir=str(tmp_path))) as dfk:
        assert read(inputs=[File("word://host/hello")]).result(timeout=30) == "hello"
        if isinstance(method, InSeparateTask):
            assert method.seen is dfk


def test_what_is_no_staging_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no staging method"):
        ThreadPoolExecutor(storage_access=[5])
