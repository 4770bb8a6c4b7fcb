"""Draw docs/chain.svg: the way of a frame, the nine parts on it, and what passes each seam.  python docs/chain.py"""

from __future__ import annotations

from pathlib import Path

STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #1f2328 } .word { font: 13px ui-monospace, monospace; fill: #0550ae }
    .seam { font-size: 12px; fill: #57606a } .side { font-weight: 600 }
    .ground { fill: #ffffff } .part { fill: #eef4fb; stroke: #0b6bb0; stroke-width: 1.5 }
    .away { fill: #fdf1e7; stroke: #b35900; stroke-width: 1.5 }
    path { stroke: #57606a; stroke-width: 1.5; fill: none } .head { fill: #57606a; stroke: none }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .word { fill: #79c0ff } .seam { fill: #9aa4af }
      .ground { fill: #131416 } .part { fill: #14233a; stroke: #58a6ff } .away { fill: #33210f; stroke: #f0883e }
      path { stroke: #9aa4af } .head { fill: #9aa4af }
    }
"""
WIDTH, HEIGHT, GAP, LEFT = 150, 52, 58, 20
ROWS = (
    (
        "server",
        (
            ("codec", "codec="),
            ("pacer", "pacer="),
            ("payload", "payload="),
            ("repair", "repairs="),
            ("spread", "spread="),
        ),
        ("bytes", "frame, due", "payloads", "payloads"),
        "part",
    ),
    ("network", (("loss and delay", "network="),), (), "away"),
    (
        "client",
        (
            ("repair", "repair="),
            ("jitter buffer", "jitter_buffer="),
            ("payload", "payload="),
            ("codec", "codec="),
            ("playout delay", "playout_delay="),
        ),
        ("Packet", "[Packet]", "bytes", "picture"),
        "part",
    ),
)
"""Who does it; the parts in their order, with their keywords; what passes from each to the next; how it is drawn."""


def _arrow(x0: float, y0: float, x1: float, y1: float) -> list[str]:
    across = y0 == y1
    side = 1 if (x1 > x0 if across else y1 > y0) else -1
    tips = ((-8, -4), (-8, 4)) if across else ((-4, -8), (4, -8))
    points = [(x1, y1)] + [(x1 + side * dx, y1 + side * dy) for dx, dy in tips]
    head = " ".join(f"{x:g},{y:g}" for x, y in points)
    return [f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}"/>', f'<polygon class="head" points="{head}"/>']


def _text(x: float, y: float, kind: str, words: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{words}</text>'


def svg() -> str:
    """The picture, which follows the light or the dark of the page that it is in."""
    step, out = WIDTH + GAP, []
    middle, right = LEFT + 2 * step, LEFT + 5 * step - GAP
    for row, (side, parts, seams, kind) in enumerate(ROWS):
        y = 50 + row * 130
        first = middle if len(parts) == 1 else LEFT
        out.append(_text(first, y - 12, "side", side, "start"))
        for at, (name, keyword) in enumerate(parts):
            x = first + at * step
            out.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>')
            out += [_text(x + WIDTH / 2, y + 22, "name", name), _text(x + WIDTH / 2, y + 42, "word", keyword)]
            if at + 1 < len(parts):
                out += _arrow(x + WIDTH + 3, y + HEIGHT / 2, x + step - 3, y + HEIGHT / 2)
                out.append(_text(x + WIDTH + GAP / 2, y + HEIGHT + 16, "seam", seams[at]))
    # Down to the network, from it to the client, and what goes back.
    top, mid, low = 50, 180, 310
    turn = right - WIDTH / 2
    out.append(f'<path d="M{turn:g} {top + HEIGHT + 3}V{mid + HEIGHT / 2}H{middle + WIDTH + 12}"/>')
    out += _arrow(middle + WIDTH + 12, mid + HEIGHT / 2, middle + WIDTH + 3, mid + HEIGHT / 2)
    out.append(_text(turn - 130, mid + HEIGHT / 2 - 8, "seam", "packets, over the frame's time"))
    start = LEFT + WIDTH / 2
    out.append(f'<path d="M{middle - 3} {mid + HEIGHT / 2}H{start:g}V{low - 12}"/>')
    out += _arrow(start, low - 12, start, low - 3)
    out.append(_text(start + 110, mid + HEIGHT / 2 - 8, "seam", "what has arrived"))
    out.append(f'<rect class="part" x="{LEFT}" y="420" width="{WIDTH}" height="{HEIGHT}" rx="8"/>')
    out += [_text(start, 442, "name", "rate control"), _text(start, 462, "word", "rate_control=")]
    note = "at the server: a Report in, of loss and round trip, twice a second; a Choice out, of quality and width"
    out.append(_text(LEFT + WIDTH + 20, 451, "seam", note, "start"))
    title = "<title>The way of a frame from a server through a network to a client, and the parts on it</title>"
    size = f'viewBox="0 0 {right + LEFT} 490" width="{right + LEFT}" height="490"'
    body = "\n  ".join([title, f"<style>{STYLE}</style>", '<rect class="ground" width="100%" height="100%"/>', *out])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n  {body}\n</svg>\n'


if __name__ == "__main__":
    Path(__file__).with_name("chain.svg").write_text(svg(), encoding="utf-8")
