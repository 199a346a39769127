"""`--gpu`, the option of commands that use a GPU of themselves where there is one."""

from __future__ import annotations

import click

GPU_OPTION = click.option(
    "--gpu",
    type=click.IntRange(-1),
    metavar="NUMBER",
    help="The GPU to work on; -1: the CPU. If not given, GPU 0, or the CPU where there is none.",
)
