# SPDX-License-Identifier: Apache-2.0
"""Parameters: one declaration makes ROS declaration, YAML and table; bad values are refused with the reason."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import yaml
from support.paths import REPOSITORY

from pixel4d_ros.ros.parameter_documents import RENAMED, renamed, to_markdown, to_yaml, unknown_names
from pixel4d_ros.ros.parameters import Parameters, parameter_name, updated


def test_config_file_is_what_the_declaration_says():
    assert (REPOSITORY / "config/forecast.yaml").read_text() == to_yaml()


def test_yaml_holds_every_parameter_with_its_default():
    values = yaml.safe_load(to_yaml())["/**"]["ros__parameters"]
    for f in fields(Parameters):
        if parameter_name(f.name) in RENAMED:
            continue
        value = values
        for part in parameter_name(f.name).split("."):
            value = value[part]
        assert value == (list(f.default) if isinstance(f.default, tuple) else f.default)
        assert type(value) is (list if isinstance(f.default, tuple) else type(f.default))


def test_table_has_a_row_for_every_parameter():
    rows = to_markdown().splitlines()
    assert len(rows) == 2 + len(fields(Parameters))
    assert all(any(row.startswith(f"| `{parameter_name(f.name)}` |") for row in rows) for f in fields(Parameters))


def test_times_and_selected_step():
    parameters = Parameters()
    assert np.allclose(parameters.times, np.arange(14) * 0.1)
    assert updated(parameters, {"steps": 5, "selected_step": 10}).selected == 4


def test_changes_go_by_ros_names_and_others_are_ignored():
    changed = updated(Parameters(), {"mounting.translation": np.array([1.0, 2.0, 3.0]), "use_sim_time": True})
    assert changed.mounting_translation == (1.0, 2.0, 3.0)
    assert changed.mounting_rotation == Parameters().mounting_rotation


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("steps", 0, "steps must be in 1..100, got 0"),
        ("step", float("nan"), "step must be finite"),
        ("min_opacity", 1.5, r"min_opacity must be in 0..1, got 1.5"),
        ("image_transport", "theora", "image_transport must be one of raw, compressed, got 'theora'"),
        ("output_size", (640,), "output_size needs 2 numbers"),
        ("output_size", (640, 0), "output_size needs width and height"),
        ("mounting.translation", (1.0, 2.0), "mounting.translation needs 3 numbers"),
        ("mounting.translation", (1.0, float("inf"), 0.0), "mounting.translation must be finite"),
        ("mounting.rotation", (0.0, 0.0, 0.0, 0.0), "unit quaternion"),
        # Milliseconds: odometry and plans of minutes ago were used, and limits never exceeded.
        ("step", 100.0, r"step must be in 0\.001\.\.2, got 100"),
        ("odometry_timeout", 500.0, r"odometry_timeout must be in 0\.\.5, got 500"),
        ("trajectory_timeout", 2000.0, r"trajectory_timeout must be in 0\.\.60, got 2000"),
        ("depth.tolerance", 20.0, r"depth\.tolerance must be in 0\.\.1, got 20"),
        ("depth.wait", 50.0, r"depth\.wait must be in 0\.\.1, got 50"),
        ("diagnostics_period", 1000.0, r"diagnostics_period must be in 0\.05\.\.60, got 1000"),
        ("diagnostics_max_latency", 60.0, r"diagnostics_max_latency must be in 0\.\.10, got 60"),
        ("diagnostics_max_age", 600.0, r"diagnostics_max_age must be in 0\.\.10, got 600"),
        ("diagnostics_silence", 2000.0, r"diagnostics_silence must be in 0\.1\.\.300, got 2000"),
    ],
)
def test_bad_values_are_refused_with_the_reason(name, value, words):
    with pytest.raises(ValueError, match=words):
        updated(Parameters(), {name: value})


def test_descriptors_say_what_a_parameter_is():
    pytest.importorskip("rclpy")
    from pixel4d_ros.ros.parameter_documents import descriptor

    descriptors = {parameter_name(f.name): descriptor(f) for f in fields(Parameters)}
    steps, autostart, transport = descriptors["steps"], descriptors["autostart"], descriptors["image_transport"]
    assert (steps.integer_range[0].from_value, steps.integer_range[0].to_value) == (1, 100)
    assert descriptors["step"].floating_point_range[0].to_value == 2.0
    assert autostart.read_only and not steps.read_only
    assert "raw, compressed" in transport.additional_constraints and "configure" in transport.additional_constraints
    assert all(d.description for d in descriptors.values())


def test_a_renamed_parameter_is_named_whatever_its_value() -> None:
    (warning,) = renamed(["steps", "motion.from_flow"])
    assert "use reference.enabled" in warning and "false switches nothing off" in warning
    assert renamed(["reference.enabled"]) == []


def test_the_file_of_defaults_sets_no_renamed_parameter() -> None:
    """Each launch takes it: nobody who set nothing is warned."""
    text = (REPOSITORY / "config" / "forecast.yaml").read_text()
    groups = yaml.safe_load(text)["/**"]["ros__parameters"]
    given = [f"{name}.{leaf}" for name, leaves in groups.items() if isinstance(leaves, dict) for leaf in leaves]
    assert "reference.enabled" in given and renamed([*groups, *given]) == []


def test_unknown_parameters_are_named_with_what_could_be_meant():
    """rclpy ignores what a params file misspells."""
    given = [
        "steps",
        "use_sim_time",
        "qos_overrides./tf.subscription.depth",
        "odometry_timout",
        "depth.tolerances",
        "xyz",
    ]
    assert unknown_names(given) == [
        "parameter odometry_timout is unknown and has no effect: is odometry_timeout meant?",
        "parameter depth.tolerances is unknown and has no effect: is depth.tolerance meant?",
        "parameter xyz is unknown and has no effect: see docs/parameters.md",
    ]
