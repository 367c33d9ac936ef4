# SPDX-License-Identifier: Apache-2.0
"""Errors whose message is all that a user needs: it names the cause and the cure."""


class WeightsError(ValueError):
    """Weights are missing, damaged, or belong to another network."""


class DeviceError(RuntimeError):
    """The device asked for is not there, or its memory is too small."""
