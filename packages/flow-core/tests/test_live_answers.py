"""Answers of a run to commands, where an executor of the user's gives nonsense, raises or hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from kernel_apps import Load, add

from flow_core.interfaces.executor import BlockExecutor
from flow_core.interfaces.scaling import BlockInfo
from flow_core.kernel import live_answers
from flow_core.kernel.live import ask
from flow_core.testing import MemoryExecutor

release = threading.Event()


def hang() -> Any:
    release.wait(60)
    return ()


def leave() -> Any:
    raise SystemExit("left")


class Blocks(MemoryExecutor, BlockExecutor):
    """An executor with blocks; what it says of them the test decides."""

    provider = object()

    def __init__(self, infos: Callable[[], Any] = tuple, most: Callable[[], Any] = lambda: 4) -> None:
        super().__init__("mine")
        self._infos, self._most = infos, most
        self.asked: list[int] = []

    def block_infos(self) -> Sequence[BlockInfo]:
        return self._infos()  # type: ignore[no-any-return]

    def most_blocks(self) -> int | None:
        return self._most()  # type: ignore[no-any-return]

    def scale_out(self, blocks: int = 1) -> Sequence[str]:
        self.asked.append(blocks)
        return [str(number) for number in range(blocks)]

    def scale_in(self, blocks: int, *, max_idletime_s: float | None = None, timeout_s: float = 60.0) -> Sequence[str]:
        self.asked.append(-blocks)
        return ["0"]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(live_answers, "_EXECUTOR_S", 0.2)
    release.clear()
    yield
    release.set()


@pytest.mark.parametrize(
    ("infos", "said"),
    [
        (hang, "did not answer within"),
        (leave, "SystemExit: left"),
        (lambda: [3], "AttributeError"),
        (lambda: 3, "TypeError"),
    ],
)
def test_what_an_executor_says_of_its_blocks_costs_its_own_line_only(load: Load, infos: Any, said: str) -> None:
    kernel = load(Blocks(infos), MemoryExecutor("other"))
    add(1)
    mine, other = ask(kernel.run_dir, "status")["executors"]
    assert said in mine["error"]
    assert "'mine'" in mine["error"]
    assert other["slots"] == 0
    with pytest.raises(LookupError, match=said):
        ask(kernel.run_dir, "scale", label="mine", blocks=2)


@pytest.mark.parametrize("most", [hang, leave, lambda: "many"])
def test_a_limit_of_blocks_that_is_none_is_told(load: Load, most: Any) -> None:
    kernel = load(Blocks(most=most))
    with pytest.raises(LookupError, match="executor 'mine'"):
        ask(kernel.run_dir, "scale", label="mine", blocks=2)


def test_blocks_are_asked_for_and_given_back_up_to_the_number(load: Load) -> None:
    blocks: list[BlockInfo] = [BlockInfo("0", state="RUNNING", active=True), BlockInfo("1", state="FAILED")]
    executor = Blocks(lambda: blocks)
    kernel = load(executor)
    assert ask(kernel.run_dir, "scale", label="mine", blocks=3) == {"before": 1, "added": ["0", "1"], "freed": []}
    assert ask(kernel.run_dir, "scale", label="mine", blocks=0) == {"before": 1, "added": [], "freed": ["0"]}
    assert ask(kernel.run_dir, "scale", label="mine", blocks=1) == {"before": 1, "added": [], "freed": []}
    assert executor.asked == [2, -1]
    with pytest.raises(LookupError, match="at most 4 blocks"):
        ask(kernel.run_dir, "scale", label="mine", blocks=5)


@pytest.mark.parametrize("request_", [{"task": True}, {"task": "1"}, {"task": -1}, {}])
def test_a_task_that_is_no_number_is_refused(load: Load, request_: dict[str, object]) -> None:
    kernel = load(MemoryExecutor("memory"))
    with pytest.raises(LookupError):
        ask(kernel.run_dir, "task", **request_)
    with pytest.raises(LookupError):
        ask(kernel.run_dir, "cancel", tasks=[request_.get("task")])
