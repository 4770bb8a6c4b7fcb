"""Records how large the sample clips' frames are as JPEGs, over width and quality.

avlab/data/sizes.csv comes from here, and `avlab.simulate` cuts its packets by it. Encoding is avlab's own, so the
table is the same on any machine: python benchmarks/sizes.py [--out avlab/data/sizes.csv]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from avlab.media import clip_sizes, codec
from avlab.media.sources import ClipSource
from avlab.wire.payloads.jpeg import check_jpeg

DATA = Path(__file__).parents[1] / "data"
SHIPPED = Path(__file__).parents[1] / "avlab" / "data"
GRID = (160, 320, 400, 640, 1280), (10, 30, 50, 80, 95, 100)
"""Widths and qualities of count.mp4, which stands for other clips, too."""

FEW = (400, 640), (50, 80)
"""Those of the other clips."""


def scans(clip: Path, width: int, quality: int) -> list[int]:
    """Bytes of each frame's entropy-coded scan, which is what travels."""
    sizes = []
    for picture in ClipSource(clip).pictures():
        jpeg, _, _ = codec.encode_jpeg(picture.image, width=width, quality=quality, matrix=picture.matrix)
        info = check_jpeg(jpeg)
        sizes.append(info.end - info.scan)
    return sizes


def main() -> None:
    """Encode every clip and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED / "sizes.csv")
    options = parser.parse_args()
    with options.out.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("clip", "width", "quality", "bytes"))
        for clip in sorted(DATA.glob("*.mp4")):
            widths, qualities = GRID if clip.name == "count.mp4" else FEW
            for width in widths:
                for quality in qualities:
                    sizes = scans(clip, width, quality)
                    table.writerow((clip.name, width, quality, " ".join(map(str, sizes))))
                    print(f"{clip.name} {width} pixels, quality {quality}: {sum(sizes) / len(sizes):.0f} bytes")
    with (SHIPPED / "clips.csv").open("w", newline="") as file:
        known = csv.writer(file, lineterminator="\n")
        known.writerow(("clip", "digest"))
        known.writerows((clip.name, clip_sizes.digest(clip)) for clip in sorted(DATA.glob("*.mp4")))


if __name__ == "__main__":
    main()
