"""Boxes, circles, words and arrows as SVG, in colours that can be read on white and on black."""

from html import escape
from pathlib import Path

LEARNT, FIXED, MEMORY, LINE = "#00796b", "#b25d00", "#5e5ec4", "#7d838c"  # fills with white words on them; lines
FONT = "font-family='system-ui, sans-serif'"


class Svg:
    """A drawing of ``width`` by ``height`` pixels."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.size, self.title = (width, height), title
        self.parts: list[str] = []  # lines
        self.top: list[str] = []  # what lies on them

    def box(self, x: float, y: float, text: str, fill: str, width: float = 46, height: float = 28) -> None:
        """A rounded box about (x, y)."""
        place = f"x='{x - width / 2:g}' y='{y - height / 2:g}' width='{width:g}' height='{height:g}'"
        self.top.append(f"<rect {place} rx='5' fill='{fill}'/>")
        self.text(x, y, text, "#fff", 14)

    def circle(self, x: float, y: float, text: str, fill: str = FIXED) -> None:
        """A circle about (x, y)."""
        self.top.append(f"<circle cx='{x:g}' cy='{y:g}' r='13' fill='{fill}'/>")
        self.text(x, y, text, "#fff", 10 if len(text) > 2 else 15)

    def dot(self, x: float, y: float) -> None:
        """Where a line branches."""
        self.top.append(f"<circle cx='{x:g}' cy='{y:g}' r='3' fill='{LINE}'/>")

    def text(self, x: float, y: float, text: str, fill: str = LINE, size: float = 13, anchor: str = "middle") -> None:
        """Words about (x, y), or from there on."""
        self.top.append(
            f"<text x='{x:g}' y='{y:g}' dy='.35em' text-anchor='{anchor}' fill='{fill}' font-size='{size:g}' {FONT}>"
            f"{escape(text)}</text>"
        )

    def line(self, *points: tuple[float, float], arrow: bool = True, dashed: bool = False, colour: str = LINE) -> None:
        """A line through points, with an arrow at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        more = (" marker-end='url(#a)'" if arrow else "") + (" stroke-dasharray='5 4'" if dashed else "")
        self.parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.8'{more}/>")

    def save(self, path: Path) -> None:
        """Write the file."""
        width, height = self.size
        tip = "viewBox='0 0 8 8' refX='7' refY='4' markerWidth='6' markerHeight='6' orient='auto'"
        arrow = f"<marker id='a' {tip}><path d='M0 0L8 4L0 8z' fill='{LINE}'/></marker>"
        size = f"viewBox='0 0 {width:g} {height:g}' width='{width:g}'"
        head = f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img'>"
        body = [head, f"<title>{escape(self.title)}</title><defs>{arrow}</defs>", *self.parts, *self.top, "</svg>"]
        path.write_text("\n".join(body) + "\n")
