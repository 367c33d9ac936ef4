# SPDX-License-Identifier: Apache-2.0
"""Decoder of protocol buffers without their definitions, for the few fields of Waymo's frames in use.

The protobuf package would need compiled definitions, which are published for TensorFlow's versions only. Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray

Message = dict[int, list[Any]]  # field number: its values in order, ints for varints, else bytes


class ProtobufError(ValueError):
    """Bytes that are no protocol buffer, or one without an expected field."""


def parse(data: memoryview) -> Message:
    """The fields of a message; views into the data. Raises ProtobufError."""
    fields: Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | memoryview
        if kind == 0:
            value, at = _varint(data, at)
        else:
            if kind == 2:
                size, at = _varint(data, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise ProtobufError(f"wire type {kind} is unknown")
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise ProtobufError("a field is longer than its message")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("a number does not end")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def first(message: Message, field: int) -> memoryview:
    """The bytes of a field. Raises ProtobufError when it is not there."""
    values = message.get(field)
    if not values or not isinstance(values[0], memoryview):
        raise ProtobufError(f"field {field} is missing")
    return values[0]


def integers(message: Message, field: int) -> list[int]:
    """A field of varints, repeated or packed; empty when it is not there."""
    out: list[int] = []
    for value in message.get(field, []):
        if isinstance(value, int):
            out.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            out.append(number)
    return out


def doubles(message: Message, field: int) -> FloatArray:
    """A field of doubles, repeated or packed, as an array. Raises ProtobufError when the bytes are no doubles."""
    return _numbers(message, field, "<f8")


def floats(message: Message, field: int) -> FloatArray:
    """A field of floats, repeated or packed, as float64. Raises ProtobufError when the bytes are no floats."""
    return _numbers(message, field, "<f4")


def integer(message: Message, field: int) -> int:
    """A single varint; 0 when it is not there, as protocol buffers have it."""
    return next(iter(integers(message, field)), 0)


def real(message: Message, field: int) -> float:
    """A single double; 0 when it is not there."""
    return float(next(iter(doubles(message, field)), 0.0))


def _numbers(message: Message, field: int, kind: str) -> FloatArray:
    values = message.get(field, [])
    if any(isinstance(v, int) or len(v) % np.dtype(kind).itemsize for v in values):
        raise ProtobufError(f"field {field} holds no {'doubles' if kind == '<f8' else 'floats'}")
    parts = [np.frombuffer(v, kind) for v in values]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float64)
