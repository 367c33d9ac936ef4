# SPDX-License-Identifier: Apache-2.0
"""The synthetic worlds: labels that hold exactly, determinism, shapes, and the driving log made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pixel4d_ros.cli import main
from pixel4d_ros.geometry.quaternions import axis_angle_to_quaternion, quaternion_rotate
from pixel4d_ros.synthetic import WorldViews, sample_views, street_clip, write_street_log
from pixel4d_ros.synthetic.camera_effects import apply_camera
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.motion import BODY_OPTICAL, ArcActor, RoadActor, RoadTable, expand, true_pose_changes
from pixel4d_ros.synthetic.primitives import Shape, intersect, unit_normals
from pixel4d_ros.synthetic.renderer import render
from pixel4d_ros.synthetic.street import make_street
from pixel4d_ros.synthetic.textures import noise
from pixel4d_ros.synthetic.views import kitti_intrinsics
from pixel4d_ros.synthetic.world import Builder, Worlds

SIZE = (160, 64)
SEEDS = (1, 3, 7, 8, 11, 20)
TIMES = (0.0, 0.4, 1.2)


@pytest.fixture(scope="module", params=["street", "room"])
def views(request: pytest.FixtureRequest) -> WorldViews:
    """Six worlds of one kind in three views each."""
    return sample_views(SEEDS, torch.tensor([TIMES] * len(SEEDS)), SIZE, kind=request.param)


def lift(views: WorldViews, b: int, v: int) -> tuple[Tensor, Tensor]:
    """Points (N, 3) in the view's camera and their pixels' mask (H, W)."""
    K, depth = views.K[b], views.depth[b, v]
    y, x = torch.meshgrid(torch.arange(depth.shape[0]), torch.arange(depth.shape[1]), indexing="ij")
    seen = torch.isfinite(depth)
    rays = torch.stack(((x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones(depth.shape)), -1)
    return (rays * depth[..., None])[seen], seen


def moved(views: WorldViews, b: int, points: Tensor, ids: Tensor, t: Tensor) -> Tensor:
    """design.md section 3 for points (N, 3) of objects ids (N,), in the source frame."""
    v, a, w, aw = views.motions[b][ids].unbind(1)
    c = views.centroids[b][ids]
    turn = axis_angle_to_quaternion(w * t + 0.5 * aw * t * t)
    return c + quaternion_rotate(turn, points - c) + v * t + 0.5 * a * t * t


def reproject(views: WorldViews, b: int, v: int) -> dict[str, Tensor]:
    """Carry view 0's pixels into view v with depth and motion, and compare with what view v shows there."""
    points, seen = lift(views, b, 0)
    ids, colors = views.object_ids[b, 0][seen], views.rgb[b, 0][seen]
    T = torch.linalg.inv(views.T_source_camera[b, v])
    p = moved(views, b, points, ids, views.times[b, v]) @ T[:3, :3].T + T[:3, 3]
    K, (width, height) = views.K[b], SIZE
    u, w = K[0, 0] * p[:, 0] / p[:, 2] + K[0, 2], K[1, 1] * p[:, 1] / p[:, 2] + K[1, 2]
    inside = (p[:, 2] > 0.1) & (u > 0) & (w > 0) & (u < width - 1) & (w < height - 1)
    u, w, p, ids, colors = (x[inside] for x in (u, w, p, ids, colors))
    grid = torch.stack((u / (width - 1) * 2 - 1, w / (height - 1) * 2 - 1), -1)[None, None]
    shown = torch.nn.functional.grid_sample(views.rgb[b, v].permute(2, 0, 1)[None], grid, align_corners=True)[0, :, 0].T
    column, row = u.round().long(), w.round().long()
    return {
        "ids": ids,
        "same_id": views.object_ids[b, v][row, column] == ids,
        "depth_error": (views.depth[b, v][row, column] - p[:, 2]) / p[:, 2],  # positive: it is not there
        "color_error": (shown - colors).abs().mean(-1),
    }


def test_static_and_moving_pixels_land_where_depth_and_motion_say(views: WorldViews) -> None:
    results = [reproject(views, b, v) for b in range(len(SEEDS)) for v in (1, 2)]
    joined = {name: torch.cat([r[name] for r in results]) for name in results[0]}
    for group in (joined["ids"] == 0, joined["ids"] > 0):
        assert group.sum() > 150
        visible = group & (joined["depth_error"].abs() < 0.05)
        # Things may hide each other later, but nothing may be seen through where a point must be.
        assert (joined["depth_error"][group] > 0.05).float().mean() < 0.08  # the rims of small things
        assert visible.sum() > 0.6 * group.sum()
        assert joined["same_id"][visible].float().mean() > 0.95
        assert joined["depth_error"][visible].abs().median() < 0.012
        assert joined["color_error"][visible].median() < 0.05


def test_wrong_motion_would_be_noticed() -> None:
    views = sample_views([1, 3, 8], torch.tensor([[0.0, 0.8]] * 3), SIZE)
    still = WorldViews(**{**vars(views), "motions": torch.zeros_like(views.motions)})

    def misses(scene: WorldViews) -> Tensor:
        results = [reproject(scene, b, 1) for b in range(3)]
        moving = [views.moving[b][r["ids"]] for b, r in enumerate(results)]
        return torch.cat([(r["depth_error"].abs() > 0.03)[m] for r, m in zip(results, moving)]).float().mean()

    assert misses(still) > 0.5
    assert misses(views) < 0.35


def test_shapes_ids_and_sky(views: WorldViews) -> None:
    B, V, (W, H) = len(SEEDS), len(TIMES), SIZE
    M = views.motions.shape[1] - 1
    assert views.rgb.shape == (B, V, H, W, 3) and views.rgb.dtype == torch.float32
    assert views.depth.shape == views.object_ids.shape == (B, V, H, W)
    assert views.object_ids.dtype == torch.int64 and views.object_ids.min() >= 0 and views.object_ids.max() <= M
    assert views.motions.shape == (B, M + 1, 4, 3) and views.centroids.shape == (B, M + 1, 3)
    assert (views.motions[:, 0] == 0).all() and (views.centroids[:, 0] == 0).all()
    assert torch.isfinite(views.rgb).all() and views.rgb.min() >= 0 and views.rgb.max() <= 1
    assert (views.depth > 0).all() and not torch.isnan(views.depth).any()
    assert torch.equal(views.T_source_camera[:, 0].round(decimals=5), torch.eye(4).expand(B, 4, 4))
    focal = views.K[:, 0, 0] / W
    assert (focal > 0.49).all() and (focal < 1.11).all()


def test_streets_have_sky_and_rooms_have_none() -> None:
    zero = torch.zeros(4, 1)
    street, room = (sample_views(range(4), zero, SIZE, kind=kind).depth for kind in ("street", "room"))
    assert torch.isinf(street).float().mean() > 0.02
    assert torch.isfinite(room).float().mean() > 0.999


def test_moving_cars_have_ids_and_parked_cars_have_none() -> None:
    layout = make_street(1)
    columns = layout.rows
    ids = columns[:, 2].astype(int)
    assert layout.actors and set(ids) == set(range(len(layout.actors) + 1))
    assert (columns[ids == 0, 1] == 6).sum() > (columns[ids > 0, 1] == 6).sum()  # wheels: most cars are parked


def test_parked_vehicles_are_objects_without_motion() -> None:
    views = sample_views(SEEDS, torch.zeros(len(SEEDS), 1), SIZE)
    for b, seed in enumerate(SEEDS):
        layout, moving = make_street(seed), views.moving[b]
        actors = len(layout.actors)
        assert moving.sum() <= actors and not moving[actors + 1 :].any()
        for number in set(views.object_ids[b, 0].unique().tolist()) - set(range(actors + 1)):
            points, seen = lift(views, b, 0)
            nearest = (points - views.centroids[b, number])[views.object_ids[b, 0][seen] == number].norm(dim=-1)
            assert nearest.max() < 8.0  # pixels of an object lie about its centroid
    parked = views.object_ids > torch.tensor([len(make_street(s).actors) for s in SEEDS])[:, None, None, None]
    assert parked.float().mean() > 0.01


def test_hidden_depth_is_that_of_the_next_static_thing() -> None:
    street = make_street(3)
    out, group = Builder(), 900.0
    out.add(Shape.BOX, Material.PLAIN, center=(8, 0, 1), half=(0.5, 0.5, 5), group=group)  # what is seen
    out.add(Shape.BOX, Material.PLAIN, center=(10, 0, 1), half=(0.5, 0.5, 5), group=group)  # of the same thing
    out.add(Shape.BOX, Material.PLAIN, center=(14, 0, 1), half=(0.5, 2, 5), object=1, instance=1)  # moves
    out.add(Shape.BOX, Material.PLAIN, center=(20, 0, 1), half=(0.5, 9, 9))
    layout = replace(street, rows=out.rows())
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = BODY_OPTICAL, (0, 0, 1.5)
    K = torch.tensor([[[40.0, 0, 31.5], [0, 40, 15.5], [0, 0, 1]]])
    index, poses = torch.zeros(1, dtype=torch.int64), torch.eye(4).expand(1, 2, 4, 4)
    view = torch.as_tensor(camera[None], dtype=torch.float32)
    drawn = render(Worlds.of([layout], "cpu"), index, poses, view, K, (64, 32), hidden=torch.ones(1, dtype=torch.bool))
    depth, hidden = drawn.depth[0, 10], drawn.hidden_depth[0, 10]
    assert depth[31] == pytest.approx(7.5) and hidden[31] == pytest.approx(19.5, abs=1e-3)
    assert depth[36] == pytest.approx(13.5) and hidden[36] == pytest.approx(19.5, abs=1e-3)
    assert depth[40] == pytest.approx(19.5) and hidden[40] == 0  # open sky behind the last wall


def test_same_seed_same_world_and_batches_equal_singles() -> None:
    times = torch.tensor([[0.0, 0.5], [0.0, 0.9]])
    both = sample_views([5, 9], times, SIZE, kind="mixed")
    again = sample_views([9], times[1:], SIZE, kind="mixed")
    for name in ("rgb", "depth", "motions", "centroids", "K", "T_source_camera"):
        torch.testing.assert_close(getattr(both, name)[1:], getattr(again, name), atol=2e-4, rtol=1e-4)
    assert torch.equal(both.object_ids[1:], again.object_ids)
    other = sample_views([10], times[1:], SIZE, kind="mixed")
    assert (other.rgb - again.rgb).abs().mean() > 0.02


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"kind": "moon"}, "kind"), ({"times": torch.zeros(2, 1)}, "times")],
)
def test_bad_requests_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        sample_views(**{"seeds": [0], "times": torch.zeros(1, 1), "size": (32, 32), **arguments})


def test_clip_motion_predicts_later_frames_within_centimetres() -> None:
    clip = street_clip(1, 11, size=(64, 32))
    assert clip.depth is not None and clip.object_ids is not None
    assert clip.object_motions is not None and clip.object_centroids is not None
    assert clip.images.dtype == np.uint8 and clip.object_ids.dtype == np.uint8
    np.testing.assert_allclose(clip.K, kitti_intrinsics((64, 32)))
    world = np.einsum("tij,tmj->tmi", clip.poses[:, :3, :3], clip.object_centroids) + clip.poses[:, None, :3, 3]
    v, a = (np.einsum("tij,tmj->tmi", clip.poses[:, :3, :3], clip.object_motions[:, :, k]) for k in (0, 1))
    t = 1.0
    error = np.linalg.norm(world[0] + v[0] * t + a[0] * t * t / 2 - world[10], axis=-1)[1:]
    exists = np.linalg.norm(clip.object_centroids[0, 1:], axis=-1) > 0
    assert exists.sum() >= 2 and error[exists].max() < 0.1
    sky = clip.depth == 0
    assert 0.01 < sky.mean() < 0.6


def test_expansion_equals_finite_differences_of_body_points() -> None:
    road = make_street(7).road
    actors = [
        RoadActor(RoadTable(road, -50, 150), 20.0, 2.0, 9.0, -1.0, -1, 0.7),
        ArcActor(np.array([3.0, 1.0, 0.7]), 0.4, 6.0, 0.5),
    ]
    expansion, h = expand(actors, 0.0), 1e-2
    before, after = (true_pose_changes(actors, np.array([t]))[0] for t in (-h, h))
    for k in range(len(actors)):
        point = np.append(expansion.centroids[k] + [1.7, -0.8, 0.3], 1.0)
        measured = ((after[k] - before[k]) @ point)[:3] / (2 * h)
        spin = np.cross([0, 0, expansion.turn_rates[k]], point[:3] - expansion.centroids[k])
        np.testing.assert_allclose(expansion.velocities[k] + spin, measured, atol=0.02)


@pytest.mark.parametrize("shape", [Shape.BOX, Shape.BALL, Shape.CYLINDER])
def test_rays_enter_and_leave_on_the_surface(shape: Shape) -> None:
    generator = torch.Generator().manual_seed(int(shape))
    o = torch.randn(400, 1, 3, generator=generator) * 3
    d = torch.nn.functional.normalize(torch.randn(400, 1, 3, generator=generator) * 0.4 - o, dim=-1)
    taper = torch.rand(400, 3, generator=generator) * 0.8
    enter, leave = intersect(int(shape), o, d, taper)
    hit = (enter < leave)[:, 0]
    assert 50 < hit.sum() < 400

    def excess(p: Tensor) -> Tensor:
        """Zero on the surface, negative inside."""
        x, y, z = p.unbind(-1)
        if shape == Shape.BALL:
            return p.norm(dim=-1) - 1
        if shape == Shape.CYLINDER:
            return torch.maximum(torch.hypot(x, y), z.abs()) - 1
        lean = 0.5 * taper[hit] * (z + 1)[:, None]
        return torch.stack((x + lean[:, 0], lean[:, 1] - x, y.abs() + lean[:, 2], z.abs()), -1).amax(-1) - 1

    for t in (enter, leave):
        p = (o + t[..., None] * d)[hit, 0]
        assert excess(p).abs().max() < 1e-4
    p = (o + enter[..., None] * d)[hit, 0]
    normals = unit_normals(torch.full((len(p),), float(shape)), p, taper[hit])
    assert ((normals * d[hit, 0]).sum(-1) <= 1e-5).all()
    assert excess((o + 0.5 * (enter + leave)[..., None] * d)[hit, 0]).max() < 1e-5


def test_noise_is_smooth_spread_and_seeded() -> None:
    p = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 200 - 100
    seed = torch.zeros(4000, dtype=torch.int64)
    values = noise(p, seed)
    assert values.min() < 0.1 and values.max() > 0.9 and abs(values.mean() - 0.5) < 0.03
    assert (noise(p + 1e-3, seed) - values).abs().max() < 0.01
    assert abs(np.corrcoef(values, noise(p, seed + 1))[0, 1]) < 0.1


def test_street_log_opens_with_all_topics(tmp_path: Path) -> None:
    reader = pytest.importorskip("pixel4d_ros.logs.reader")
    path = tmp_path / "street.mcap"
    write_street_log(path, seed=2, frames=4, size=(96, 48), progress=False)
    camera = "/camera/left"
    with reader.LogReader(path) as log:
        counts = {name: topic.count for name, topic in log.topics.items()}
        plans = [m.message for m in log.messages(["/planned_path"])]
        odometry = [m.message for m in log.messages(["/odometry"])]
    assert counts.pop("/tf_static") == 1
    names = [f"{camera}/image_raw/compressed", f"{camera}/camera_info", f"{camera}/depth/compressed"]
    assert counts == dict.fromkeys([*names, "/tf", "/odometry", "/planned_path"], 4)
    assert len(plans[0].poses) == 31
    ahead, there = plans[0].poses[2].pose.position, odometry[2].pose.pose.position
    assert abs(ahead.x - there.x) < 1e-6 and there.x > 1
    speed = odometry[1].twist.twist.linear.x
    step = odometry[2].pose.pose.position.x - odometry[0].pose.pose.position.x
    assert abs(speed - step / 0.2) < 0.05


def test_command_writes_a_log_and_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "street.mcap"
    assert main(["synthesize", str(path), "--frames", "2", "--size", "64x32"]) == 0
    assert path.stat().st_size > 2000
    with pytest.raises(SystemExit):
        main(["synthesize"])
    assert "OUT.mcap" in capsys.readouterr().err
    assert main(["synthesize", str(path), "--frames", "0"]) == 1
    whole = path.read_bytes()
    assert main(["synthesize", str(path), "--frames", "1", "--size", "64x32"]) == 1
    assert "exists: choose another name, or pass --force" in capsys.readouterr().err and path.read_bytes() == whole
    assert main(["synthesize", str(path), "--frames", "1", "--size", "64x32", "--force"]) == 0


def test_cuda_agrees_with_the_processor() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    times = torch.tensor([[0.0, 0.7]] * 2)
    cpu, cuda = (sample_views([3, 8], times, SIZE, device=device, kind="mixed") for device in ("cpu", "cuda"))
    assert (cpu.rgb - cuda.rgb.cpu()).abs().mean() < 1e-3
    assert (cpu.object_ids != cuda.object_ids.cpu()).float().mean() < 1e-3


def test_a_camera_blurs_edges_adds_noise_and_depends_on_its_seed_alone() -> None:
    images = torch.zeros(3, 2, 24, 40, 3)
    images[..., 20:, :] = 0.8
    recorded, again = apply_camera(images, [4, 5, 6]), apply_camera(images[1:], [5, 6])
    assert recorded.shape == images.shape and recorded.min() >= 0 and recorded.max() <= 1
    torch.testing.assert_close(recorded[1:], again)
    step = [(v[..., 1:, :] - v[..., :-1, :]).abs().amax((1, 2, 3, 4)) for v in (images, recorded)]
    assert (step[1] < step[0]).all()  # the edge is softer
    assert recorded[..., 2:18, :].flatten(1).std(1).max() > 1e-3  # flat grey is not flat
    assert (recorded[0] - recorded[1]).abs().max() > 0.01


def test_rays_pass_between_the_bars_of_a_fence_and_meet_them_at_their_depth() -> None:
    out = Builder()
    out.add(
        Shape.BOX, Material.FENCE, center=(8, 0, 1.5), half=(1.5, 0.01, 1.5), yaw=np.pi / 2, params=(0.5, 0.3, 0, 9)
    )
    out.add(Shape.BOX, Material.PLAIN, center=(20, 0, 1.5), half=(0.5, 9, 9))
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = BODY_OPTICAL, (0, 0, 1.5)
    K = torch.tensor([[[160.0, 0, 31.5], [0, 160, 15.5], [0, 0, 1]]])
    index, poses = torch.zeros(1, dtype=torch.int64), torch.eye(4).expand(1, 2, 4, 4)
    view = torch.as_tensor(camera[None], dtype=torch.float32)
    layout = replace(make_street(3), rows=out.rows())
    row = render(Worlds.of([layout], "cpu"), index, poses, view, K, (64, 32)).depth[0, 16, 8:56]
    bars = row < 10
    assert row[bars].sub(8).abs().max() < 0.02 and row[~bars].sub(19.5).abs().max() < 0.02
    assert 0.2 < bars.float().mean() < 0.45 and bars.diff().sum() > 6
