# SPDX-License-Identifier: Apache-2.0
"""Compiles what numba keeps beside its source: or every test worker and node would do so at once."""

from __future__ import annotations

import torch

from pixel4d_ros.rendering import rasterize
from pixel4d_ros.two_view.warm_up import compile_all
from support.gaussian_views import converted, random_views, with_movers

if __name__ == "__main__":
    rasterize(converted(random_views(0, 1), torch.float32))
    rasterize(with_movers(0))
    compile_all()
