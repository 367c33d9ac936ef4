# SPDX-License-Identifier: Apache-2.0
"""Training data: augmented crops keep their cameras true, and all views of a sample change alike."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.synthetic import WorldViews, sample_views
from pixel4d_ros.training import synthetic_data
from pixel4d_ros.training.augmentation import Crop, change_colors, crop_grids, sparse_depth
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.flow import clip_flow, frame_gaps, is_stills
from pixel4d_ros.training.real_data import RealData
from pixel4d_ros.training.synthetic_data import exact_flow, make_batches, varied
from pixel4d_ros.two_view.flow import measured_flow

often = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
SIZE = (64, 32)
NATIVE_K = np.array([[120.0, 0, 95], [0, 118, 33], [0, 0, 1]])
NATIVE_SIZE = (200, 80)


def mirrored(crop: Crop, points: FloatArray) -> FloatArray:
    """Points (N, 3) as the crop's world has them."""
    return points * [-1, 1, 1] if crop.mirrored else points


@often
@given(seeds)
def test_a_crop_samples_the_image_where_its_camera_looks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crop = Crop.draw(*NATIVE_SIZE, SIZE, rng)
    grid = crop_grids([crop], torch.zeros(1, 3, *NATIVE_SIZE[::-1]), 1)[0].double().numpy()
    # From grid_sample's -1..1 (image edges) to pixels with centres at integers.
    u, v = (grid[..., 0] + 1) / 2 * NATIVE_SIZE[0] - 0.5, (grid[..., 1] + 1) / 2 * NATIVE_SIZE[1] - 0.5
    assert u.min() >= -0.5 and u.max() <= NATIVE_SIZE[0] - 0.5 and v.min() >= -0.5 and v.max() <= NATIVE_SIZE[1] - 0.5
    rays = np.stack((u, v, np.ones_like(u)), -1).reshape(-1, 3) @ np.linalg.inv(NATIVE_K).T
    points = mirrored(crop, rays * rng.uniform(1, 50, (len(rays), 1)))
    pixels = points @ crop.intrinsics(NATIVE_K).T
    column, row = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    np.testing.assert_allclose(pixels[:, 0] / pixels[:, 2], column.ravel(), atol=1e-2)
    np.testing.assert_allclose(pixels[:, 1] / pixels[:, 2], row.ravel(), atol=1e-2)


def test_a_finer_grid_averages_to_the_coarse_one() -> None:
    crops = [Crop.draw(*NATIVE_SIZE, SIZE, np.random.default_rng(seed)) for seed in range(6)]
    assert {crop.mirrored for crop in crops} == {False, True}
    images = torch.zeros(6, 3, *NATIVE_SIZE[::-1])
    fine, coarse = crop_grids(crops, images, 2), crop_grids(crops, images, 1)
    averaged = torch.nn.functional.avg_pool2d(fine.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(averaged, coarse, atol=1e-5, rtol=0)


@often
@given(seeds, st.booleans())
def test_a_mirrored_pose_moves_mirrored_points(seed: int, mirror: bool) -> None:
    rng = np.random.default_rng(seed)
    crop = Crop(0, 0, *NATIVE_SIZE, SIZE, mirror)
    T_source_camera = rigid(rotation_matrix(rng.uniform(-1, 1, 3)), rng.uniform(-3, 3, 3))
    in_camera = rng.uniform(-5, 5, (10, 3))
    in_source = in_camera @ T_source_camera[:3, :3].T + T_source_camera[:3, 3]
    T = crop.pose(T_source_camera)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    moved = mirrored(crop, in_camera) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(moved, mirrored(crop, in_source), atol=1e-9)


def test_all_views_of_a_sample_change_their_colours_alike() -> None:
    image = torch.rand(4, 1, 3, 8, 8)
    changed = change_colors(image.expand(4, 3, 3, 8, 8), np.random.default_rng(0))
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert not torch.allclose(changed[:, :1], image, atol=0.01)


def drive(frames: int = 6) -> Clip:
    """A drive past a wall 10 m ahead whose red is its x and green its y: an image says where its pixels look."""
    column, row = np.meshgrid(np.arange(NATIVE_SIZE[0]), np.arange(NATIVE_SIZE[1]))
    images, poses, depths = [], [], []
    for i in range(frames):
        pose = rigid(np.eye(3), [0.05 * i, 0, 0.2 * i])
        depth = 10 - pose[2, 3]
        x, y = (
            (column - NATIVE_K[0, 2]) / NATIVE_K[0, 0] * depth + pose[0, 3],
            (row - NATIVE_K[1, 2]) / NATIVE_K[1, 1] * depth,
        )
        images.append(
            np.stack((x * 12 + 128, y * 20 + 128, np.full_like(x, 50.0)), -1).round().clip(0, 255).astype(np.uint8)
        )
        poses.append(pose)
        depths.append(np.full(x.shape, depth, np.float32))
    return Clip("drive", np.stack(images), NATIVE_K, np.stack(poses), np.arange(frames) * 0.1, np.stack(depths))


def test_a_batch_of_real_views_agrees_with_its_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel4d_ros.training.real_data.change_colors", lambda images, rng: images)
    data = RealData([drive()], np.random.default_rng(1), torch.device("cpu"))
    batch = data.batch(6, 3, SIZE)
    assert batch.images.shape == (6, 3, 3, 32, 64) and batch.flow.shape == (6, 2, 32, 64)
    torch.testing.assert_close(batch.times[:, 1], torch.full((6,), 0.2))
    assert (batch.object_ids <= 0).all() and (batch.times[:, 0] == 0).all()  # the wall stands
    for b in range(6):
        for v in range(3):
            u, w = 40.0, 20.0  # a pixel of the source, lifted and looked up in view v
            K0, K, T = (t.double() for t in (batch.K[b, 0], batch.K[b, v], batch.T_source_camera[b, v]))
            point = torch.linalg.inv(K0) @ torch.tensor([u, w, 1.0], dtype=torch.float64) * batch.depth[b, 20, 40]
            seen = K @ (T[:3, :3].T @ (point - T[:3, 3]))
            x, y = (seen[:2] / seen[2]).tolist()
            if not (1 < x < 62 and 1 < y < 30):
                continue
            place = torch.tensor([[[[(x + 0.5) / 64 * 2 - 1, (y + 0.5) / 32 * 2 - 1]]]])
            found = torch.nn.functional.grid_sample(batch.images[b, v][None], place, align_corners=False)[0, :, 0, 0]
            torch.testing.assert_close(found, batch.images[b, 0, :, 20, 40], atol=0.012, rtol=0)


def test_a_sample_of_a_drive_has_an_earlier_reference_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel4d_ros.training.real_data.change_colors", lambda images, rng: images)
    data = RealData([drive()], np.random.default_rng(1), torch.device("cpu"))
    batch = data.batch(30, 2, SIZE)
    known = torch.isfinite(batch.reference_time)
    assert known.any() and not known.all()  # the first frame has none
    assert ((batch.reference_time[known] < 0) & (batch.reference_time[known] > -0.6)).all()
    assert (batch.reference[~known] == 0).all() and (batch.reference[known].amax((1, 2, 3)) > 0).all()
    speed = batch.T_source_camera[:, 1, 2, 3] / batch.times[:, 1]  # the drive is even
    torch.testing.assert_close(
        batch.T_source_reference[known, 2, 3], (speed * batch.reference_time)[known], atol=1e-3, rtol=0
    )


def test_photographs_without_metres_are_a_tenth_of_a_second_apart_and_of_unknown_scale() -> None:
    stills = replace(drive(), name="outdoor_x", times=np.arange(len(drive())) * 1.0, metric=False)
    batch = RealData([stills], np.random.default_rng(2), torch.device("cpu")).batch(20, 3, SIZE)
    assert not batch.metric.any() and torch.isnan(batch.speed).all()
    torch.testing.assert_close(batch.times[:, 1], torch.full((20,), 0.1))
    known = torch.isfinite(batch.reference_time)
    torch.testing.assert_close(batch.reference_time[known], torch.full_like(batch.reference_time[known], -0.1))
    assert (batch.object_ids == 0).all()


def test_the_measured_flow_of_a_shifted_image_is_its_shift() -> None:
    world = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (80, 220, 3), np.uint8), (0, 0), 2)
    first, second = world[:, 10:210], world[:, 6:206]  # everything is 4 pixels further right
    flow = measured_flow(first, second)
    known = np.isfinite(flow).all(-1)
    assert known.mean() > 0.8
    np.testing.assert_allclose(np.median(flow[known], 0), [4 / 200, 0], atol=0.3 / 200)
    # What leaves the image cannot be followed.
    assert np.isnan(flow[:, -3:]).all()


def test_flow_leads_to_the_frame_two_steps_on_and_the_last_frames_have_none() -> None:
    clip = drive(5)
    flow = clip_flow(clip)
    assert flow.shape == (5, *NATIVE_SIZE[::-1], 2)
    assert np.isnan(flow[-2:]).all() and np.isfinite(flow[:-2]).any()


def test_the_frames_that_flow_connects_depend_on_the_time_between_them() -> None:
    def every(period: float) -> Clip:
        return replace(drive(), times=np.arange(len(drive())) * period)

    assert frame_gaps(every(0.1)) == (2, 5) and frame_gaps(every(1 / 30)) == (6, 15)
    assert frame_gaps(every(0.5)) == (1, 2) and not is_stills(every(0.5))
    assert frame_gaps(every(1.0)) == (1, 2) and is_stills(every(1.0))


def test_the_exact_flow_of_a_synthetic_world_carries_its_colours_along() -> None:
    views = sample_views([1, 3, 8], torch.tensor([[0.0, 0.2]] * 3), (104, 32))
    flow = exact_flow(views)
    assert torch.isnan(flow[torch.isinf(views.depth[:, 0])[:, None].expand(-1, 2, -1, -1)]).all()
    images, moving = views.rgb.permute(0, 1, 4, 2, 3), views.object_ids[:, 0] > 0
    found, there = carried(images, flow)
    for pixels in (there & moving, there & ~moving):
        assert pixels.sum() > 50
        resembles, repeated = ((image - images[:, 0]).abs().mean(1)[pixels].median() for image in (found, images[:, 1]))
        assert resembles < 0.5 * repeated


def carried(images: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The colours of view 1 where flow leads (B, 3, H, W), and whether that lies in the image (B, H, W)."""
    height, width = flow.shape[-2:]
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack(((column + flow[:, 0] + 0.5) / width, (row + flow[:, 1] + 0.5) / height), -1) * 2 - 1
    found = torch.nn.functional.grid_sample(images[:, 1], place.nan_to_num(5.0), align_corners=False)
    return found, (place.abs() < 0.95).all(-1)


# The mirror


@pytest.fixture(scope="module")
def made() -> Batch:
    """Eight synthetic worlds, of which some turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_data, "MADE_AT_ONCE", 1)
        (batch,) = make_batches(8, 2, (104, 32), np.random.default_rng(0), torch.device("cpu"), kind="street")
    return batch


def flow_of(batch: Batch) -> Tensor:
    """Flow as depth, cameras and motion of a batch say."""
    views = WorldViews(
        batch.images.permute(0, 1, 3, 4, 2),
        batch.depth[:, None],
        batch.object_ids[:, None],
        batch.K[:, 0],
        batch.T_source_camera,
        batch.times,
        batch.motions,
        batch.centroids,
    )
    return exact_flow(views)


def test_mirrored_twice_a_batch_is_itself_again(made: Batch) -> None:
    again = synthetic_data.mirrored(synthetic_data.mirrored(made))
    for f in fields(Batch):
        torch.testing.assert_close(getattr(again, f.name), getattr(made, f.name), equal_nan=True, msg=f.name)


def test_in_the_mirror_labels_and_flow_still_agree(made: Batch) -> None:
    other = synthetic_data.mirrored(replace(made, matched=made.depth))
    assert not torch.equal(other.depth, made.depth) and torch.equal(other.matched, other.depth)
    turning = made.motions[:, 1:, 2:].abs().amax((-1, -2)) > 0.05
    pixels = torch.stack([turning[b][ids - 1] & (ids > 0) for b, ids in enumerate(made.object_ids)])
    assert pixels.sum() > 50  # or the signs of the turns would not show
    for batch in (made, other):
        torch.testing.assert_close(flow_of(batch), batch.flow, rtol=1e-3, atol=1e-2, equal_nan=True)
    (found, _), (mirrored_found, _) = carried(made.images, made.flow), carried(other.images, other.flow)
    torch.testing.assert_close(mirrored_found.flip(-1), found, rtol=0, atol=1e-3)


def test_varied_worlds_change_their_colours_and_sometimes_their_side(made: Batch) -> None:
    days = [varied(made, np.random.default_rng(seed)) for seed in range(8)]
    sides = [torch.equal(day.depth, made.depth) for day in days]
    assert {True, False} == set(sides)
    for day, same in zip(days, sides):
        assert same or torch.equal(day.depth, made.depth.flip(-1))
        assert day.images.shape == made.images.shape and day.images.min() >= 0 and day.images.max() <= 1
        seen = day.images if same else day.images.flip(-1)
        assert 0.01 < (seen - made.images).abs().mean() < 0.3


def test_sparse_depth_is_true_where_it_is_given_and_often_missing() -> None:
    torch.manual_seed(0)
    truth = torch.rand(64, 16, 24) * 60 + 2
    truth[:, :3] = torch.inf
    given = sparse_depth(truth)
    known = given > 0
    assert not known[:, :3].any()
    assert ((given / truth - 1).abs()[known] < 0.2).all()
    shares = known.float().mean((1, 2))
    assert 0.25 < (shares == 0).float().mean() < 0.85 and shares.max() > 0.5
