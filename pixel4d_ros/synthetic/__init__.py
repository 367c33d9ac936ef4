# SPDX-License-Identifier: Apache-2.0
"""Synthetic streets and rooms: exact images, depth, object ids and motion, rendered on demand on any device."""

from pixel4d_ros.synthetic.log import write_street_log
from pixel4d_ros.synthetic.views import WorldViews, sample_views, street_clip

__all__ = ["WorldViews", "sample_views", "street_clip", "write_street_log"]
