# SPDX-License-Identifier: Apache-2.0
# A shell that knows the package: `source env.sh`, from any folder, in bash or zsh, after `make setup`.
# python, pixel4d and colcon are then the virtual environment's; ros2, where ROS is installed, finds pixel4d_ros too.

if [ -n "${BASH_SOURCE:-}" ]; then
  _pixel4d_root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
else
  _pixel4d_root="$(cd "$(dirname "${(%):-%x}")" 2>/dev/null && pwd)"
fi

if [ ! -f "$_pixel4d_root/.venv/bin/activate" ] || [ ! -f "$_pixel4d_root/install/pixel4d_ros/share/pixel4d_ros/package.sh" ]; then
  echo "pixel4d_ros is not set up: run 'make setup' in $_pixel4d_root first." >&2
  unset _pixel4d_root
  return 1
fi

# Setup scripts of ROS and colcon read variables that may be unset.
case $- in *u*) _pixel4d_nounset=1; set +u ;; *) _pixel4d_nounset= ;; esac

# The ROS installation that setup built against, if any; the file holds its prefix.
if [ -s "$_pixel4d_root/.venv/ros_prefix" ]; then
  . "$(cat "$_pixel4d_root/.venv/ros_prefix")/setup.sh"
fi
. "$_pixel4d_root/.venv/bin/activate"
# The package's own script rather than install/setup.sh, which cannot stand spaces in the path.
COLCON_CURRENT_PREFIX="$_pixel4d_root/install/pixel4d_ros"
. "$COLCON_CURRENT_PREFIX/share/pixel4d_ros/package.sh"
unset COLCON_CURRENT_PREFIX

# What the virtual environment's start-up hook adds (AMENT_PREFIX_PATH, LD_LIBRARY_PATH), also for programs not in Python.
for _pixel4d_name in AMENT_PREFIX_PATH LD_LIBRARY_PATH; do
  export "$_pixel4d_name=$("$_pixel4d_root/.venv/bin/python" -c "import os; print(os.environ.get('$_pixel4d_name', ''))")"
done

[ -n "$_pixel4d_nounset" ] && set -u
unset _pixel4d_root _pixel4d_nounset _pixel4d_name
