# SPDX-License-Identifier: Apache-2.0
"""Whether there is time to compare an image with a reference image, by what the last forecasts took."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.25  # of a forecast's time that the comparison may take where images are dropped in any case
RETRY_S = 10.0  # of stamps, after which a comparison that took too long is tried again


@dataclass(frozen=True)
class _Measured:
    """Times in seconds of the last forecast with a reference image."""

    stamp: float
    forecast: float  # without the comparison
    comparison: float


class ReferenceBudget:
    """Decides by the camera's period and the times of the last comparison. Used by one thread.

    The first comparison does not count: it also takes the start of the libraries that measure flow.
    """

    def __init__(self) -> None:
        self._started = False
        self._measured: _Measured | None = None
        self._last: tuple[float, int] | None = None  # stamp, and images received until then
        self._period = 0.0

    def image(self, stamp: float, received: int) -> None:
        """Note an image's stamp in seconds, and how many images have been received until now."""
        if self._last is not None and stamp > self._last[0] and received > self._last[1]:
            self._period = (stamp - self._last[0]) / (received - self._last[1])
        self._last = (stamp, received)

    def took(self, stamp: float, forecast: float, comparison: float) -> None:
        """Note the seconds that a forecast and its comparison with a reference image took."""
        if self._started:
            self._measured = _Measured(stamp, forecast, comparison)
        self._started = True

    def refusal(self, stamp: float) -> str:
        """Why the image at this stamp should not be compared with a reference image; empty: it should.

        A comparison may take what a forecast leaves of the camera's period, or SHARE of the forecast.
        """
        m = self._measured
        if m is None or not 0 <= stamp - m.stamp < RETRY_S:
            return ""
        free = max(self._period - m.forecast, SHARE * m.forecast)
        if m.comparison <= free:
            return ""
        return f"a reference image takes {1e3 * m.comparison:.0f} ms, {1e3 * free:.0f} ms are free"
