# SPDX-License-Identifier: Apache-2.0
"""Labels of real clips by a trained flow network: matches become depth, and processes share the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.training.flow_network import FlowNetwork
from pixel4d_ros.training.flow_teacher import FlowTeacher, working_size
from pixel4d_ros.training.matched_points import best_of, is_textured, is_there_and_back, triangulated

K = np.array([[60.0, 0, 47.5], [0, 60, 31.5], [0, 0, 1]])
HEIGHT, WIDTH = 64, 96
T_OTHER_CAMERA = rigid_inverse(rigid(rotation_matrix([0.01, 0.05, 0.0]), [0.8, 0.05, 0.1]))


def slope() -> Tensor:
    """Depth (H, W) of a tilted plane."""
    return 4 + torch.arange(WIDTH).float()[None].expand(HEIGHT, -1) / 20


def exact_flow(depth: Tensor, T: np.ndarray) -> Tensor:
    """Flow (2, H, W) of a static surface to a camera at T_other_camera."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    rays = np.stack((u, v, np.ones_like(u))).reshape(3, -1)
    points = T[:3, :3] @ (np.linalg.inv(K) @ rays * depth.numpy().ravel()) + T[:3, 3:]
    seen = K @ points
    return torch.from_numpy((seen[:2] / seen[2] - rays[:2]).reshape(2, HEIGHT, WIDTH)).float()


def test_exact_matches_give_exact_depth() -> None:
    flow = exact_flow(slope(), T_OTHER_CAMERA)
    depth, parallax = triangulated(flow, torch.ones(HEIGHT, WIDTH, dtype=torch.bool), K, K, T_OTHER_CAMERA)
    assert (depth > 0).all() and (parallax > 3).all()
    torch.testing.assert_close(depth, slope(), atol=1e-3, rtol=0)


def test_matches_off_the_epipolar_line_or_with_little_parallax_are_dropped() -> None:
    trusted = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    flow = exact_flow(slope(), T_OTHER_CAMERA)
    flow[1, :, :40] += 3  # something that moves on its own
    depth, _ = triangulated(flow, trusted, K, K, T_OTHER_CAMERA)
    assert (depth[:, :40] == 0).all() and (depth[:, 40:] > 0).all()
    far = exact_flow(50 * slope(), T_OTHER_CAMERA)
    assert (triangulated(far, trusted, K, K, T_OTHER_CAMERA)[0] == 0).all()


def test_flow_is_trusted_where_the_way_back_leads_home() -> None:
    there = torch.zeros(2, HEIGHT, WIDTH)
    there[0] = 5
    back = -there
    back[0, :, 50:60] = 0  # what is hidden in the first image
    trusted = is_there_and_back(there, back)
    assert trusted[:, :44].all() and not trusted[:, 46:54].any() and trusted[:, 56:90].all()
    assert not trusted[:, 92:].any()  # leaves the image


def test_what_has_no_texture_is_told_from_what_has() -> None:
    image = torch.full((3, HEIGHT, WIDTH), 250.0)
    image[:, :, 48:] = torch.randint(0, 255, (HEIGHT, WIDTH - 48)).float()
    textured = is_textured(image)
    assert not textured[:, :40].any() and textured[:, 50:].all()


def test_the_estimate_with_most_parallax_counts_unless_another_contradicts_it() -> None:
    one, two = torch.tensor([[4.0, 4.0, 0.0, 4.0]]), torch.tensor([[4.1, 8.0, 7.0, 0.0]])
    depth, parallax = best_of([(one, torch.tensor([[5.0, 5, 0, 5]])), (two, torch.tensor([[9.0, 4, 4, 0]]))])
    assert depth.tolist() == [[pytest.approx(4.1), 0.0, 7.0, 4.0]] and parallax.tolist() == [[9.0, 0.0, 4.0, 5.0]]


def test_flow_is_measured_at_about_the_same_number_of_pixels_for_every_camera() -> None:
    for width, height in ((832, 250), (400, 120), (1600, 900), (278, 416)):
        wide, high = working_size(width, height)
        assert wide % 32 == high % 32 == 0
        assert abs(np.log(wide / high * height / width)) < 0.1
        assert 0.8 < wide * high / (832 * 256) < 1.2


def weights(path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(FlowNetwork().state_dict(), path)
    return path


def drive() -> Clip:
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 64, 3), np.uint8)
    return Clip("drive", images, K / [[1.5], [2], [1]], np.tile(np.eye(4), (4, 1, 1)), np.arange(4) * 0.1)


def test_labels_made_by_one_process_are_read_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel4d_ros.training.flow_teacher.PIXELS", 64 * 64)
    path, folder, cpu = weights(tmp_path / "flow.pkl"), tmp_path / "labels", torch.device("cpu")
    first, second = (FlowTeacher(path, folder, cpu, rank, 2) for rank in (0, 1))
    made = first.labels(drive(), 0)
    assert made.flow.shape[0] == 4 and np.isfinite(made.flow[:2]).any() and np.isnan(made.flow[2:]).all()
    assert (made.depth == 0).all()  # the camera stands
    monkeypatch.setattr(FlowNetwork, "forward", None)  # nothing is computed again
    again = second.labels(drive(), 0)
    np.testing.assert_array_equal(again.flow, made.flow)
    monkeypatch.setattr("pixel4d_ros.training.flow_teacher.PATIENCE", 0)
    with pytest.raises(TimeoutError, match="no other process"):
        second.labels(drive().part(0, 3), 0)


def test_a_file_that_holds_other_weights_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pkl")
    (tmp_path / "empty.pkl").touch()
    for name in ("other", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.pkl holds no weights of GMFlow") as caught:
            FlowTeacher(tmp_path / f"{name}.pkl", tmp_path, torch.device("cpu"))
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
