# SPDX-License-Identifier: Apache-2.0
"""Help of an option that several commands share; a file of its own, as it imports nothing."""

RECTIFIED = (
    "a log's images are rectified already although their CameraInfo has distortion coefficients: use its P (default: by"
    " the topic's name, image_rect..., and by whether K and P agree)"
)
