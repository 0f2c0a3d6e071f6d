"""What is printed of others' words gives a terminal no orders."""

from __future__ import annotations

import logging
import unicodedata

import pytest
from hypothesis import given, strategies as st

from flow_core.log_lines import LogLines
from flow_core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä, 漢\n\tas it is", "plain, ä, 漢\n\tas it is"),
        ("\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),
        ("done\rfailed", "done\\x0dfailed"),
        ("\x9b31mred", "\\x9b31mred"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("one\u2028two\u2029three", "one\\u2028two\\u2029three"),
        ("\udc1b[2J", "\\udc1b[2J"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_no_order_is_left_and_it_can_be_written(text: str) -> None:
    done = printable(text)
    assert not [one for one in done if unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t"]
    done.encode()
    assert printable(done) == done


@given(st.text(st.one_of(st.characters(), st.sampled_from("\n\r\x0b\x0c\x1c\x85\u2028"))), st.booleans())
def test_one_record_begins_one_line(text: str, raised: bool) -> None:
    error = ValueError(text)
    record = logging.LogRecord("flow", 20, "", 0, "%s", (text,), (ValueError, error, None) if raised else None)
    first, *others = LogLines("TIME %(message)s").format(record).splitlines()
    assert first.startswith("TIME ")
    assert all(line.startswith("    ") for line in others)
