"""Draws the link: `python docs/figures/link.py` writes docs/_static/link.svg."""

from pathlib import Path

OUT = Path(__file__).parent.parent / "_static" / "link.svg"
WIDTH, HEIGHT = 920, 290

#: A grey that reads on white and on black; boxes have a ground of their own.
LINE = "#7d7d7d"
GROUND = {"user": "#d6e6f5", "channel": "#f7e3c4", "station": "#d8ecd6", "second": "#ead9f0"}


def box(x: int, y: int, width: int, height: int, kind: str, *lines: str) -> str:
    """A box with its lines of text, the first of them bold."""
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{GROUND[kind]}" stroke="{LINE}"/>',
    ]
    top = y + height / 2 - 9 * (len(lines) - 1) + 5
    for number, line in enumerate(lines):
        style = ' font-weight="600"' if number == 0 else ' font-size="12.5"'
        parts.append(f'<text x="{x + width / 2}" y="{top + 18 * number}" fill="#1a1a1a"{style}>{line}</text>')
    return "\n".join(parts)


def arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    """A line with a head."""
    return f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{LINE}" stroke-width="1.6" fill="none" marker-end="url(#head)"/>'


def label(x: int, y: int, text: str, anchor: str = "middle") -> str:
    """Text outside boxes."""
    return f'<text x="{x}" y="{y}" fill="{LINE}" font-size="13" text-anchor="{anchor}">{text}</text>'


def sub(letter: str, index: str) -> str:
    """A letter with an index."""
    return f'{letter}<tspan dy="3" font-size="10">{index}</tspan><tspan dy="-3">&#8203;</tspan>'


def drawing() -> str:
    """The whole drawing as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="Helvetica, Arial, sans-serif" font-size="14" text-anchor="middle">',
        "<title>The link: N users' encoders, a shared channel with fading and noise, a decoder, a second stage</title>",
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>',
    ]
    for y, number in ((40, "1"), (110, "2"), (210, "N")):
        middle = y + 24
        parts += [
            label(12, middle + 5, sub("image x", number), "start"),
            arrow(78, middle, 108, middle),
            box(110, y, 130, 48, "user", f"encoder {number}", "user " + number),
            arrow(240, middle, 398, 144),
            label(262, middle - 9 if number != "N" else middle + 20, sub("s", number), "start"),
            label(*{"1": (330, 83), "2": (306, 129), "N": (330, 207)}[number], f"× {sub('h', number)}"),
        ]
    parts += [
        label(175, 189, "⋮"),
        '<circle cx="414" cy="144" r="15" fill="#f7e3c4" stroke="#7d7d7d" stroke-width="1.6"/>',
        '<text x="414" y="150" fill="#1a1a1a" font-size="19">+</text>',
        arrow(414, 82, 414, 128),
        label(414, 72, "noise n"),
        label(414, 182, f"y = Σ {sub('h', 'i')} {sub('s', 'i')} + n"),
        arrow(430, 144, 508, 144),
        label(468, 134, "y"),
        box(510, 112, 130, 64, "station", "decoder", "of all N users"),
        arrow(640, 144, 688, 144),
        box(690, 112, 130, 64, "second", "second stage", "optional"),
        arrow(820, 144, 850, 144),
        label(856, 140, "N images", "start"),
        label(856, 158, "→ metrics", "start"),
        label(175, 24, "transmitters"),
        label(388, 24, "one shared channel: fading and noise"),
        label(665, 98, "base station"),
        label(575, 200, "SemNOMA, NGF, SIC, …"),
        label(755, 200, "DDIM, CGAN, SFT, …"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    OUT.write_text(drawing())
