# SPDX-License-Identifier: Apache-2.0
"""Packages for `pip install .`; setup.cfg has the rest. The weights, a folder beside the code, become package data."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pixel4d_ros", "pixel4d_ros.*"]), "pixel4d_ros.weights"],
    package_dir={"pixel4d_ros.weights": "weights"},
)
