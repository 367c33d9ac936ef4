# SPDX-License-Identifier: Apache-2.0
"""Images or depth of a clip, read on access."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

S = TypeVar("S", bound=np.generic)
CACHED = 16  # frames: neighbouring windows of a clip overlap


class LazyFrames(Generic[S]):
    """Frames (T, H, W) or (T, H, W, 3) read by `load(index)`, indexed like an array.

    An int gives a new array, a slice another LazyFrames with the same cache (the last CACHED frames), a tuple an
    array as in numpy. np.asarray reads all frames. Raises the errors of `load`.
    """

    def __init__(
        self, load: Callable[[int], NDArray[S]], count: int, frame_shape: tuple[int, ...], dtype: DTypeLike
    ) -> None:
        self._load = lru_cache(maxsize=CACHED)(load)
        self._indices: Sequence[int] = range(count)
        self._frame_shape = tuple(frame_shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3)."""
        return (len(self._indices), *self._frame_shape)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, key: slice) -> LazyFrames[S]: ...
    @overload
    def __getitem__(self, key: int | np.integer[Any] | tuple[Any, ...]) -> NDArray[S]: ...
    def __getitem__(self, key: slice | int | np.integer[Any] | tuple[Any, ...]) -> LazyFrames[S] | NDArray[S]:
        if isinstance(key, slice):
            return self._view(self._indices[key])
        frames: NDArray[S]
        if isinstance(key, tuple):
            frames = self._part(key)
        else:
            frames = self._load(self._indices[int(key)]).copy()  # callers may modify it
        return frames

    def only(self, indices: Sequence[int]) -> LazyFrames[S]:
        """The frames with these indices, with the same cache."""
        return self._view([self._indices[i] for i in indices])

    def _view(self, indices: Sequence[int]) -> LazyFrames[S]:
        view: LazyFrames[S] = object.__new__(LazyFrames)
        view.__dict__.update(self.__dict__, _indices=indices)
        return view

    def _part(self, key: tuple[Any, ...]) -> Any:
        first, *rest = key
        if isinstance(first, (int, np.integer)):
            return self[first][tuple(rest)]
        if isinstance(first, slice):
            frames, index = self[first], (slice(None), *rest)
            return np.asarray(frames)[index]
        return np.asarray(self)[key]

    def __iter__(self) -> Iterator[NDArray[S]]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(self.shape, self.dtype)
        for i in range(len(self)):
            out[i] = self._load(self._indices[i])
        return out if dtype is None else out.astype(dtype, copy=False)
