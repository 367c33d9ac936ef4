# SPDX-License-Identifier: Apache-2.0
"""Splits of KITTI raw in published work.

"tulsiani": the 28 city drives of Tulsiani et al., Layer-structured 3D Scene Inference via View Synthesis (ECCV 2018),
20 to train on, 4 to validate and 4 to test, as its code (google/layered-scene-inference) draws them with seed 0; MINE
and later work on single-image view synthesis use the same. "eigen": the drives of Eigen et al. (NIPS 2014) as
monodepth2 lists them; its training and validation images are from the same 33 drives, here `train`, and the
benchmark evaluates 697 single images of the test drives.
"""

from __future__ import annotations

_TULSIANI = {
    "train": """09_26: 0002 0005 0011 0013 0014 0018 0051 0056 0059 0060 0091 0093 0095 0096 0104 0113
                09_28: 0001 0002, 09_29: 0026 0071""",
    "val": "09_26: 0009 0017 0048 0117",
    "test": "09_26: 0001 0057 0084 0106",
}
_EIGEN = {
    "train": """09_26: 0001 0005 0011 0014 0015 0017 0018 0019 0022 0028 0032 0035 0039 0051 0057 0060 0061 0070 0079
                0087 0091 0095 0104 0113
                09_28: 0001, 09_29: 0004 0026, 09_30: 0020 0028 0033 0034, 10_03: 0034 0042""",
    "test": """09_26: 0002 0009 0013 0020 0023 0027 0029 0036 0046 0048 0052 0056 0059 0064 0084 0086 0093 0096 0101
               0106 0117, 09_28: 0002, 09_29: 0071, 09_30: 0016 0018 0027, 10_03: 0027 0047""",
}
SPLITS = {"tulsiani": _TULSIANI, "eigen": _EIGEN}


def split_drives(split: str, part: str) -> tuple[str, ...]:
    """Names of the drives, e.g. 2011_09_26_drive_0001_sync. Raises ValueError for an unknown split or part."""
    if split not in SPLITS:
        raise ValueError(f"{split!r} is no split of KITTI raw: choose {' or '.join(SPLITS)}")
    if part not in SPLITS[split]:
        raise ValueError(f"the split {split} has no part {part!r}: choose {', '.join(SPLITS[split])}")
    names, day = [], ""
    for word in SPLITS[split][part].replace(",", " ").split():
        if word.endswith(":"):
            day = f"2011_{word[:-1]}"
        else:
            names.append(f"{day}_drive_{word}_sync")
    return tuple(names)
