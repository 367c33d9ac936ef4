# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies of messages and requests of every ROS type, made from its fields."""

from __future__ import annotations

import copy
import math
import re
from importlib import import_module
from typing import Any

from hypothesis import strategies as st

from support import fuzz

INTEGERS = re.compile(r"(u?)int(8|16|32|64)")
MOST = 3  # elements of a sequence
LARGEST_FLOAT = 3.4e38  # of 32 bits


def any_value(kind: str, words: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any value of a field of this type, as get_fields_and_field_types names it; its texts are `words`."""
    sequence, array = re.fullmatch(r"sequence<([^,]+)(?:, \d+)?>", kind), re.fullmatch(r"(.+)\[(\d+)\]", kind)
    if sequence:
        return st.lists(any_value(sequence[1], words), max_size=MOST)
    if array:
        size = int(array[2])
        return st.lists(any_value(array[1], words), min_size=size, max_size=size)
    if integer := INTEGERS.fullmatch(kind):
        bits, low = int(integer[2]), 0
        if not integer[1]:
            bits, low = bits - 1, -(2 ** (bits - 1))
        return st.integers(0, 10) | st.integers(low, 2**bits - 1)
    if kind == "float":
        return fuzz.numbers.filter(lambda value: not math.isfinite(value) or abs(value) < LARGEST_FLOAT)
    package, _, name = kind.partition("/")
    simple = {
        "boolean": st.booleans(),
        "double": fuzz.numbers,
        "octet": st.binary(min_size=1, max_size=1),
        "string": words,
    }
    return simple[kind] if not name else any_message(getattr(import_module(f"{package}.msg"), name), words)


@st.composite
def any_message(draw: st.DrawFn, kind: Any, words: st.SearchStrategy[str] = fuzz.frames) -> Any:
    """A message (or request) of this class whose fields have any values; stamps are mostly near the harness's clock."""
    if kind.__name__ == "Time":
        return draw(fuzz.times())
    message = kind()
    for field, field_kind in kind.get_fields_and_field_types().items():
        setattr(message, field, draw(any_value(field_kind, words)))
    return message


@st.composite
def varied(draw: st.DrawFn, good: Any, words: st.SearchStrategy[str] = fuzz.frames) -> Any:
    """A good message one or two of whose fields, at any depth, have any other values."""
    message = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        part = message
        while True:
            kinds = part.get_fields_and_field_types()
            field = draw(st.sampled_from(sorted(kinds)))
            value = getattr(part, field)
            inner = draw(st.sampled_from(value)) if isinstance(value, list) and value else value
            if not hasattr(inner, "get_fields_and_field_types") or not draw(st.integers(0, 3)):
                break
            part = inner
        setattr(part, field, draw(any_value(kinds[field], words)))
    return message
