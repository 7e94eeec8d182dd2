#!/usr/bin/env bash
# Next session: set up the branch, the runs of the sweep and the long computation. Removed before merging.
# git worktree add /tmp/world -b miniguard-2 HEAD^2 (from main) has been done before.
set -e
cd /tmp/world
mkdir -p /tmp/runs && tar -xJf wip/sweep-cells.tar.xz -C /tmp/runs
rm -rf /tmp/compute && mkdir /tmp/compute && cp -r workbench data pyproject.toml /tmp/compute/
