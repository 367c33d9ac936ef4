# SPDX-License-Identifier: Apache-2.0
"""What options of several commands share; a file of its own, as it imports nothing."""

FASTEST_RATE = 1e4  # of a replay, times real time

RECTIFIED = (
    "a log's images are rectified already although their CameraInfo has distortion coefficients: use its P (default: by"
    " the topic's name, image_rect..., and by whether K and P agree)"
)
RECORDING = "forecast.mcap"  # of demo and replay --score, in the folder for their results
