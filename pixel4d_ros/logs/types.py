# SPDX-License-Identifier: Apache-2.0
"""ROS message types without ROS: those of Jazzy from `rosbags`, plus the definitions stored in a log."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

# Types that ROS 2 has renamed.
RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
IDL_SEPARATOR = "=" * 80 + "\n"
HEADER = "std_msgs/msg/Header"
# Types that the package reads: a log's own definition must have their fields.
USED = (
    HEADER,
    "builtin_interfaces/msg/Time",
    *(f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo", "RegionOfInterest")),
    *(f"nav_msgs/msg/{name}" for name in ("Odometry", "Path")),
    *(f"geometry_msgs/msg/{name}" for name in ("Point", "Pose", "PoseStamped", "PoseWithCovariance", "Quaternion")),
    *(f"geometry_msgs/msg/{name}" for name in ("Transform", "TransformStamped", "Vector3")),
    "tf2_msgs/msg/TFMessage",
)


@lru_cache(maxsize=1)
def jazzy_types() -> Typestore:
    """All message types of ROS 2 Jazzy. Shared: do not register types in it."""
    return get_typestore(Stores.ROS2_JAZZY)


@lru_cache(maxsize=8)
def merged_types(definitions: tuple[tuple[str, MessageDefinition], ...]) -> Typestore:
    """A store of (type name, definition) pairs and, for every other name, Jazzy's types.

    Shared by logs with the same definitions, as it takes a third of a second to make: do not register types in it.
    A log's own definition takes precedence: its bytes were written with it. Definitions that cannot be parsed are
    skipped: their types stay unknown unless Jazzy has them. Raises ValueError for one that lacks a field.
    """
    own = _parsed(definitions)
    for name in set(USED) & set(own):
        missing = {field for field, _ in jazzy_types().fielddefs[name][1]} - {field for field, _ in own[name][1]}
        if missing:
            raise ValueError(f"its definition of {name} lacks {', '.join(sorted(missing))}")
    return store_of({**jazzy_types().fielddefs, **own})


def store_of(fields: dict[str, Any]) -> Typestore:
    """A store of the types with these parsed fields.

    The classes of those that are as in Jazzy are shared: making the classes of all of them takes 0.3 s.
    """
    jazzy, store = jazzy_types(), get_typestore(Stores.EMPTY)
    same = {name for name, definition in fields.items() if jazzy.fielddefs.get(name) == definition}
    store.register({name: definition for name, definition in fields.items() if name not in same})
    store.fielddefs.update({name: jazzy.fielddefs[name] for name in same})
    store.types.update({name: jazzy.types[name] for name in same})
    return store


def parse_definition(name: str, definition: MessageDefinition) -> dict[str, Any]:
    """The parsed fields of a type and of those it contains; empty without a text. Raises TypesysError."""
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, name)
    if definition.format == MessageDefinitionFormat.IDL:
        texts = [definition.data]
        if definition.data.startswith(IDL_SEPARATOR + "IDL: "):
            texts = [part.split("\n", 1)[1] for part in definition.data.split(IDL_SEPARATOR)[1:]]
        return {key: value for text in texts for key, value in get_types_from_idl(text).items()}
    return {}


def ros2_types(ros1: Typestore) -> Typestore:
    """The types that messages of a rosbag1 are converted to: Jazzy's, else the bag's own."""
    jazzy = jazzy_types().fielddefs
    return store_of({**ros1.fielddefs, **jazzy})


def ros1_types(definitions: Iterable[tuple[str, MessageDefinition]]) -> Typestore:
    """The types of a rosbag1, which always stores its definitions."""
    return store_of(_parsed(definitions))


def _parsed(definitions: Iterable[tuple[str, MessageDefinition]]) -> dict[str, Any]:
    """The fields of all types whose definitions can be parsed."""
    own = {}
    for name, definition in definitions:
        try:
            own.update(parse_definition(name, definition))
        except TypesysError:
            continue
    return own
