"""The synthetic street and rooms: exact images, depth, object ids and motion, made on the spot on any device."""

from __future__ import annotations

from pixel4d_ros.synthetic.views import RenderedViews, sample_views, street_clip

__all__ = ["RenderedViews", "sample_views", "street_clip"]
