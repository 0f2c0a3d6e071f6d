"""Arguments are digested by structure: what is the same, what is not, and what cannot be."""

from __future__ import annotations

import array
import datetime
import decimal
import enum
import functools
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.files import File
from flow_core.memo.digest import CannotDigest, Walker, frame
from flow_core.memo.registry import by_content, id_for_memo

Pair = namedtuple("Pair", "left right")


def encode(value: object) -> bytes:
    return Walker().encode(value)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Plain:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: object) -> None:
        self.x = x


@dataclass
class Point:
    x: object
    y: object = 0


class MyInt(int):
    pass


class MySet(set[object]):
    pass


DIFFERENT: list[object] = [
    *(None, True, False, 0, 1, -1, 255, 256, 2**70, 1.0, 0.0, -0.0, 1j, float("inf"), "1", b"1", bytearray(b"1")),
    *("", b"", (), [], {}, set(), frozenset(), ..., NotImplemented, "None", "True"),
    *((1,), [1], {1}, frozenset({1}), {1: 1}, {1: None}, {"1": 1}, {1.0: 1}, (1, (2, 3)), ((1, 2), 3), (1, 2, 3)),
    *(["ab", "c"], ["a", "bc"], ["abc"], [["a"], "bc"], ["a", ["bc"]], "x" * 2000, "x" * 2001, b"x" * 2000),
    *(range(3), range(4), slice(1, 2), slice(2, 1), Colour.RED, Colour.BLUE, Colour, Point, Plain),
    *(Point(1), Point(2), Point(1, 1), Plain(x=1), Plain(y=1), Slotted(1), Slotted(2), MyInt(1), MySet({1})),
    *(Pair(1, 2), (1, 2), Path("a"), Path("b"), File("a"), File("b"), File("http://h/a")),
    *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.timedelta(1)),
    *(decimal.Decimal("1"), decimal.Decimal("1.0"), uuid.UUID(int=1), uuid.UUID(int=2)),
    *(OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), {"a": 1, "b": 2}, defaultdict(int, a=1), Counter("aab")),
    *(deque([1, 2]), deque([2, 1]), deque([1, 2], 5), array.array("i", [1]), array.array("q", [1]), memoryview(b"1")),
    *(functools.partial(int, "1"), functools.partial(int, "2"), len, str, str.upper, [].append, ValueError("a")),
]


def test_different_values_have_different_digests() -> None:
    seen: dict[bytes, object] = {}
    for value in DIFFERENT:
        encoded = encode(value)
        assert encoded not in seen, f"{value!r} and {seen[encoded]!r}"
        seen[encoded] = value


@pytest.mark.parametrize(
    "make",
    [
        lambda: [1, "two", {"three": (4.0, b"five", None)}],
        lambda: Plain(a={"x", "y", "z"}, b=[Plain(c=1)]),
        lambda: Point(Point(1, {2, 3}), {"k": [4]}),
        lambda: {Pair(1, 2): Colour.RED, 1: "mixed", None: 2.5, (1, "a"): b""},
        lambda: defaultdict(list, {"b": [1], "a": [2]}),
        lambda: Counter("hello"),
        lambda: File("some/file.txt"),
        lambda: ValueError("text", 1),
        lambda: uuid.UUID(int=5),
        lambda: float("nan"),
        lambda: object(),
    ],
)
def test_equal_values_made_twice_have_the_same_digest(make: Callable[[], object]) -> None:
    assert encode(make()) == encode(make())


def test_the_order_of_dicts_and_sets_does_not_matter() -> None:
    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})
    assert encode({1, "a", None, 2.5}) == encode({2.5, None, "a", 1})
    assert encode(Plain(a=1, b=2)) == encode(Plain(b=2, a=1))


def test_a_shared_part_counts_as_a_copy_of_it() -> None:
    part = ["x" * 100]
    assert encode([part, part]) == encode([["x" * 100], ["x" * 100]])


def test_a_file_is_its_url_wherever_it_was_staged() -> None:
    assert encode(File("http://h/a")) == encode(File("http://h/a", local_path="/tmp/a"))


def test_cycles_end() -> None:
    def knot() -> list[object]:
        loop: list[object] = [1]
        loop.append({"me": loop})
        return loop

    assert encode(knot()) == encode(knot())
    assert encode(knot()) != encode([1, {"me": [1]}])


def test_a_value_that_shares_its_parts_exponentially_is_quick() -> None:
    value: list[object] = ["x" * 50]
    for _ in range(100):
        value = [value, value]
    assert encode(value)


def test_nesting_beyond_recursion_is_refused_by_name() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CannotDigest, match="nested too deeply"):
        encode(value)


def test_what_cannot_be_part_of_a_key_is_named_with_its_path() -> None:
    def generator() -> Iterator[int]:
        yield 1

    for value, path in [
        ([1, {"a": threading.Lock()}], "[1]['a']"),
        (Plain(inner=Plain(lock=threading.Lock())), ".inner.lock"),
        (Point(1, (0, generator())), ".y[1]"),
    ]:
        with pytest.raises(CannotDigest) as caught:
            encode(value)
        assert "".join(caught.value.path) == path


def test_what_looks_like_an_array_is_digested_by_its_bytes() -> None:
    class Array:
        dtype = type("D", (), {"descr": [("", "<i8")], "hasobject": False})()

        def __init__(self, shape: tuple[int, ...], data: bytes) -> None:
            self.shape, self.data = shape, data

        def tobytes(self) -> bytes:
            return self.data

        def tolist(self) -> list[int]:
            return list(self.data)

    assert encode(Array((2,), b"ab")) == encode(Array((2,), b"ab"))
    assert encode(Array((2,), b"ab")) != encode(Array((2, 1), b"ab"))
    assert encode(Array((2,), b"ab")) != encode(Array((2,), b"ac"))


def test_numpy_arrays_are_digested_by_dtype_shape_and_bytes() -> None:
    numpy = pytest.importorskip("numpy")
    values = [
        numpy.arange(6),
        numpy.arange(6.0),
        numpy.arange(6).reshape(2, 3),
        numpy.arange(6)[::-1],
        numpy.int64(1),
        numpy.int32(1),
        numpy.array([1, "a"], dtype=object),
        numpy.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    ]
    assert len({encode(value) for value in values}) == len(values)
    assert encode(numpy.arange(6).reshape(2, 3).T) == encode(numpy.arange(6).reshape(2, 3).T.copy())


def test_users_say_what_identifies_their_types() -> None:
    class Sample:
        def __init__(self, name: str) -> None:
            self.name, self.lock = name, threading.Lock()

    @id_for_memo.register(Sample)
    def _(sample: Sample) -> object:
        return sample.name

    assert encode([Sample("a")]) == encode([Sample("a")])
    assert encode(Sample("a")) != encode(Sample("b"))


def test_files_may_be_identified_by_their_content(tmp_path: Path) -> None:
    class DataFile(File):
        __slots__ = ()

    id_for_memo.register(DataFile)(by_content)
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
    files = [DataFile(str(tmp_path / name)) for name in ("one", "two")]
    assert encode(files[0]) == encode(files[1])
    (tmp_path / "two").write_text("other")
    assert encode(files[0]) != encode(files[1])


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def _exactly_equal(one: object, other: object) -> bool:
    return repr(one) == repr(other)


@given(_VALUES, _VALUES)
def test_digests_are_equal_just_where_values_are(one: object, other: object) -> None:
    assert encode(one) == encode(one)
    if encode(one) == encode(other):
        assert one == other
    elif not isinstance(one, dict) and _exactly_equal(one, other):
        raise AssertionError(f"{one!r} has two digests")


@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=4))
def test_frames_never_run_into_one_another(pairs: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(frame(b"k", left) + frame(b"v", right) for left, right in pairs)
    found = []
    while data:
        texts = []
        for _ in range(2):
            size = int.from_bytes(data[1:5], "little")
            texts.append(data[5 : 5 + size])
            data = data[5 + size :]
        found.append((texts[0], texts[1]))
    assert found == pairs
