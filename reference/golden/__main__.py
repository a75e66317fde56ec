"""python -m golden CHECKOUT"""

import contextlib
import os
import sys
import warnings
from pathlib import Path

from . import standins


def main():
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "models/richsem").is_dir():
        sys.exit("usage: python -m golden CHECKOUT\n"
                 "  CHECKOUT: a clone of the official RichSem code (github MengLcool/RichSem)")
    warnings.filterwarnings("ignore")
    standins.install(Path(sys.argv[1]).resolve())

    from . import data, fixtures, forward, small, steps

    standins.serve_clip(small.small_clip)
    # The official code tells about every constructor and step.
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
        data.write()
        seed = forward.smooth_seed(1)
        forward.write("text", seed)
        steps.write(seed)
        linear = dict(use_language=False, use_visual_distill=False)
        forward.write("linear", forward.smooth_seed(seed + 1, **linear), **linear)
    size = sum(f.stat().st_size for f in fixtures.FOLDER.iterdir())
    print(f"{size / 1e6:.1f} MB in {fixtures.FOLDER}")


main()
