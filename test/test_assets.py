# SPDX-License-Identifier: Apache-2.0
"""Textured models in synthetic streets: their files, their exact depth and ids, and training's option `assets`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.paths import shared_path

from pixel4d_ros.synthetic import sample_views
from pixel4d_ros.synthetic.assets import VEHICLES, Assets, read_assets
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.mesh_files import read_mesh
from pixel4d_ros.synthetic.motion import BODY_OPTICAL
from pixel4d_ros.synthetic.plan import SUBURB
from pixel4d_ros.synthetic.primitives import SLICES, Shape
from pixel4d_ros.synthetic.renderer import Rendered, render
from pixel4d_ros.synthetic.street import make_street
from pixel4d_ros.synthetic.world import Builder, Worlds
from pixel4d_ros.training import synthetic_data
from pixel4d_ros.training.config_file import parse_fields
from pixel4d_ros.training.synthetic_data import exact_flow, make_batches

# A box from (0, 0, 0) to (2, 4, 1), as quads whose texture is the whole image.
QUADS = ("1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4")
CORNERS = [(x, y, z) for x in (0, 2) for y in (0, 4) for z in (0, 1)]


def write_box(folder: Path, name: str = "hatchback") -> Path:
    """A folder of assets with one model, a box of green paint whose texture is red on its front half."""
    for sub in ("meshes", "textures"):
        (folder / sub).mkdir(parents=True)
    lines = ["mtllib box.mtl", *(f"v {x} {y} {z}" for x, y, z in CORNERS), "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    lines += ["g Body", "usemtl Paint"]
    lines += ["f " + " ".join(f"{corner}/{k + 1}" for k, corner in enumerate(quad.split())) for quad in QUADS]
    (folder / "meshes" / f"{name}__box.obj").write_text("\n".join(lines))
    (folder / "meshes" / f"{name}__box.mtl").write_text("newmtl Paint\n map_Kd ../textures/Box.png\n")
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, :32], image[:, 32:] = (0, 0, 200, 0), (200, 200, 200, 255)
    cv2.imwrite(str(folder / "textures" / f"{name}__box.png"), image)
    return folder


@pytest.fixture
def box(tmp_path: Path) -> Assets:
    return read_assets(write_box(tmp_path / "assets"))


def render_rows(out: Builder, assets: Assets, hidden: bool = False) -> Rendered:
    """The rows seen from (0, 0, 1.5) along x, in 96x64 pixels."""
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = BODY_OPTICAL, (0, 0, 1.5)
    K = torch.tensor([[[50.0, 0, 47.5], [0, 50, 31.5], [0, 0, 1]]])
    layout = replace(make_street(3), rows=out.rows())
    index, poses = torch.zeros(1, dtype=torch.int64), torch.eye(4).expand(1, 2, 4, 4)
    view = torch.as_tensor(camera[None], dtype=torch.float32)
    worlds = Worlds.of([layout], "cpu", assets.meshes)
    return render(worlds, index, poses, view, K, (96, 64), hidden=torch.ones(1, dtype=torch.bool) if hidden else None)


@pytest.mark.parametrize(
    "place",
    [
        {"center": (9, 0.4, 1.0), "half": (2, 0.9, 0.8), "yaw": 0.7},
        {"center": (2, 1.4, 1.0), "half": (6, 0.9, 1.4), "yaw": 0.05},  # beside the camera and behind it
        {"center": (30, -4, 1.0), "half": (2, 0.9, 0.8), "yaw": 2.0},
    ],
)
def test_a_model_of_a_box_is_where_a_box_is(box: Assets, place: dict) -> None:
    solid, model = Builder(), Builder()
    solid.add(Shape.BOX, Material.PLAIN, object=1, instance=1, **place)
    model.add(Shape.MESH, Material.MESH, object=1, instance=1, color2=1, **place)
    expected, got = render_rows(solid, box), render_rows(model, box)
    assert (expected.object_ids == 1).sum() > 5
    same = got.object_ids == expected.object_ids
    assert (~same).sum() <= 1  # a ray along an edge
    torch.testing.assert_close(got.depth[same], expected.depth[same], rtol=1e-4, atol=1e-4)


def test_what_a_model_hides_is_traced_and_a_model_hides_nothing_of_itself(box: Assets) -> None:
    out = Builder()
    for x in (8, 14):
        out.add(Shape.MESH, Material.MESH, center=(x, 0, 1.5), half=(1, 1, 1), color2=1)
    out.add(Shape.BOX, Material.PLAIN, center=(20, 0, 1), half=(0.5, 9, 9))
    drawn = render_rows(out, box, hidden=True)
    assert drawn.depth[0, 31, 47] == pytest.approx(7, abs=1e-3)
    assert drawn.hidden_depth[0, 31, 47] == pytest.approx(13, abs=1e-3)


def test_paint_replaces_what_the_mask_covers(box: Assets) -> None:
    out = Builder()
    place = {"center": (4, 0, 1.5), "half": (1, 1, 1), "params": (0, 1, 0, 0), "color": (0, 0.5, 0), "color2": 1}
    out.add(Shape.MESH, Material.MESH, yaw=np.pi, **place)
    seen = render_rows(out, box).rgb[0, 25:38, 38:58].reshape(-1, 3)
    assert (seen[:, 0] > 1.5 * seen[:, 1]).sum() > 50  # not painted
    assert (seen[:, 1] > 1.5 * seen[:, 0]).sum() > 50


def test_shadows_of_a_model_fall_on_the_ground_and_not_on_itself(box: Assets) -> None:
    lit, shaded = Builder(), Builder(box.chooser(1))
    rows, height = next(found for found in (box.chooser(seed)("car") for seed in range(9)) if found)
    assert 0.6 < height < 0.9
    rows[:, SLICES["center"].start] += 9
    rows[:, SLICES["instance"]] = 1
    lit.parts, shaded.parts = [rows[:1]], [rows]
    without, shadow = render_rows(lit, box), render_rows(shaded, box)
    model = without.object_ids > 0
    torch.testing.assert_close(without.rgb[model], shadow.rgb[model])
    assert model.sum() > 50 and (without.rgb - shadow.rgb)[~model].max() > 0.02


def test_streets_with_models_have_the_same_drive_and_exact_labels(box: Assets) -> None:
    times = torch.tensor([[0.0, 0.3]] * 4)
    seeds = (1, 3, 7, 8)
    plain, textured = (sample_views(seeds, times, (160, 64), assets=assets) for assets in (None, box))
    for name in ("K", "T_source_camera"):
        assert torch.equal(getattr(plain, name), getattr(textured, name))
    assert (plain.rgb - textured.rgb).abs().mean() > 1e-3
    b, y, x = textured.moving[torch.arange(4)[:, None, None], textured.object_ids[:, 0]].nonzero(as_tuple=True)
    there = exact_flow(textured)[b, :, y, x] + torch.stack((x, y), -1)
    column, row = there.round().long().unbind(-1)
    seen = (column >= 0) & (column < 160) & (row >= 0) & (row < 64)
    b, y, x, column, row = (v[seen] for v in (b, y, x, column, row))
    same = textured.object_ids[b, 1, row, column] == textured.object_ids[b, 0, y, x]
    assert len(same) > 150 and same.float().mean() > 0.85
    for seed in seeds:
        rows = make_street(seed, assets=box).rows
        meshes = rows[rows[:, 0] == Shape.MESH]
        wheels = make_street(seed).rows[:, 1] == Material.WHEEL
        assert len(meshes) >= (wheels.sum() > 40)
        assert (meshes[:, SLICES["half"]][:, 0] < 2.3).all()


def test_leaves_have_holes_and_the_street_has_trees(tmp_path: Path) -> None:
    folder = write_box(tmp_path / "assets", "oak_tree")
    leaves = np.full((64, 64, 4), 255, np.uint8)
    leaves[:32, :, 3] = 0
    cv2.imwrite(str(folder / "textures" / "oak_tree__box.png"), leaves)
    trees = read_assets(folder)
    out = Builder()
    out.add(Shape.MESH, Material.MESH, center=(6, 0, 1.5), half=(1, 1, 1), color2=1, instance=1)
    share = (render_rows(out, trees).object_ids[0, 23:40, 39:56] == 1).float().mean()
    assert 0.3 < share < 0.95  # through the front one sees the back, or nothing
    rows = np.concatenate([make_street(seed, assets=trees).rows for seed in range(4)])
    assert ((rows[:, 0] == Shape.MESH) & (rows[:, SLICES["instance"].start] == 0)).any()


def test_houses_outside_towns_are_replaced_and_nothing_of_them_stays(tmp_path: Path) -> None:
    houses = read_assets(write_box(tmp_path / "assets", "house_1"))
    for seed in range(3):
        plain, textured = (make_street(seed, style=SUBURB, assets=assets).rows for assets in (None, houses))
        count = [int((rows[:, SLICES["material"].start] == Material.ROOF).sum()) for rows in (plain, textured)]
        models = textured[textured[:, 0] == Shape.MESH]
        assert count[0] - count[1] == len(models) > 0
        groups = models[:, SLICES["group"].start]
        left = np.isin(textured[:, SLICES["group"].start], groups) & (textured[:, 0] <= Shape.CYLINDER)
        assert not left.any()


def test_obj_and_collada_of_one_box_agree(tmp_path: Path) -> None:
    path = write_box(tmp_path / "assets") / "meshes" / "hatchback__box.obj"
    (obj,) = read_mesh(path)
    assert obj.corners.shape == (12, 3, 3) and obj.texture == "../textures/Box.png"
    triangles = [t for quad in QUADS for a, b, c, d in [quad.split()] for t in ((a, b, c), (a, c, d))]
    numbers = " ".join(str(int(corner) - 1) for t in triangles for corner in t)
    points = " ".join(str((value - shift) / 0.0254) for p in CORNERS for value, shift in zip(p, (0, 0, 0.5)))
    dae = path.with_suffix(".dae")
    dae.write_text(f"""<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema">
      <asset><unit meter="0.0254"/></asset>
      <geometry id="g"><mesh>
        <source id="p"><float_array>{points}</float_array><accessor stride="3"/></source>
        <vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
        <triangles material="m"><input semantic="VERTEX" source="#v" offset="0"/><p>{numbers}</p></triangles>
      </mesh></geometry>
      <visual_scene><node><translate>0 0 {0.5 / 0.0254}</translate><instance_geometry url="#g"/></node></visual_scene>
    </COLLADA>""")
    (part,) = read_mesh(dae)
    np.testing.assert_allclose(part.corners, obj.corners, atol=1e-9)
    np.testing.assert_allclose(part.normals, obj.normals, atol=1e-9)
    assert part.texture is None


def test_a_batch_for_training_takes_models(box: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_data, "MADE_AT_ONCE", 1)
    plain, textured = (
        make_batches(2, 1, (64, 32), np.random.default_rng(2), torch.device("cpu"), "street", assets)[0]
        for assets in (None, box)
    )
    assert torch.equal(plain.T_source_camera, textured.T_source_camera)
    assert not torch.equal(plain.images, textured.images)


def test_a_config_file_names_the_folder_relative_to_itself(tmp_path: Path) -> None:
    assert parse_fields({"assets": "../assets"}, "here", tmp_path / "config") == {"assets": tmp_path / "assets"}


def test_wrong_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known model"):
        read_assets(tmp_path)
    empty = tmp_path / "empty.obj"
    empty.write_text("v 0 0 0\n")
    with pytest.raises(ValueError, match="no triangles"):
        read_mesh(empty)


def test_the_shared_models_have_the_size_of_vehicles_and_their_textures() -> None:
    assets = read_assets(shared_path("assets"))
    assert {model.spec.name for model in assets.models} >= {"bus", "hatchback", "fire_truck", "pickup"}
    for model in assets.models:
        first, count = (int(v[model.index]) for v in (assets.meshes.first, assets.meshes.count))
        corners = assets.meshes.corners[first : first + count]
        assert corners.amin().item() == pytest.approx(-1) and corners.amax().item() == pytest.approx(1)
        length, width, height = model.spec.size
        if model.spec.kind in VEHICLES:
            assert 1.4 < height < 3.8 and 1.6 < length / width < 4.6
    assert len(assets.meshes.mips) > 10
