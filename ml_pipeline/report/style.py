"""How the page looks: one style sheet, light and dark, for screens of any width and for paper.

The page's content security policy allows this sheet by its hash and no other, so no element has a ``style`` attribute:
geometry stands in SVG attributes, colour in classes.
"""

from __future__ import annotations

import base64
import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "POLICY", "SHEET"]

LIGHT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "page": "#f5f7f9",
        "card": "#ffffff",
        "soft": "#eff2f5",
        "edge": "#d5dbe1",
        "ink": "#1c2128",
        "muted": "#57606a",
        "link": "#0757ba",
        "ok": "#1a7f37",
        "ok-soft": "#e6f6ea",
        "bad": "#c21c2c",
        "bad-soft": "#fdecec",
        "warn": "#8a5600",
        "warn-soft": "#fdf3d8",
        "idle": "#57606a",
        "idle-soft": "#eceff2",
        "cpu": "#0969da",
        "memory": "#8250df",
        "reference": "#a4aeb9",
        "batch": "#c2410c",
    }
)
"""Colours on light paper, by what they mean."""

DARK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "page": "#0d1117",
        "card": "#151b23",
        "soft": "#1f262f",
        "edge": "#323a44",
        "ink": "#e9eef4",
        "muted": "#9da7b3",
        "link": "#6cb0ff",
        "ok": "#4cc266",
        "ok-soft": "#12281b",
        "bad": "#ff8078",
        "bad-soft": "#32171b",
        "warn": "#e0ab3a",
        "warn-soft": "#2b220f",
        "idle": "#9da7b3",
        "idle-soft": "#222932",
        "cpu": "#58a6ff",
        "memory": "#b58cf7",
        "reference": "#5d6875",
        "batch": "#ff9a56",
    }
)
"""The same on dark."""

_RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;color-scheme:light dark;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 -apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;
 font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
span,strong,code,td,dd,li,b,bdi{unicode-bidi:isolate}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.87em}
a{color:var(--link);text-underline-offset:.15em}
a:focus-visible,[tabindex]:focus-visible,summary:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:4px}
h1,h2,h3,p,ol,ul,dl,dd,figure,pre{margin:0;padding:0}
ol,ul{list-style:none}
h2{font-size:1.12rem;line-height:1.3}
h3{font-size:.95rem;line-height:1.35}
main,.top,.foot{max-width:1120px;margin:0 auto;padding:0 24px}
.top{padding-top:24px;display:flex;flex-wrap:wrap;gap:2px 18px;align-items:baseline;color:var(--muted);font-size:.87rem}
.top strong{color:var(--ink);font-size:1rem;margin-right:auto}
.foot{padding-top:8px;padding-bottom:40px;color:var(--muted);font-size:.82rem}
.skip{position:absolute;left:-999em}
.skip:focus{left:8px;top:8px;background:var(--card);padding:6px 12px}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.card{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:20px 22px;margin:16px 0;min-width:0}
.card>header{display:flex;flex-wrap:wrap;gap:2px 14px;align-items:baseline;margin-bottom:14px}
.card>header p{color:var(--muted);font-size:.87rem}
.note{color:var(--muted);font-size:.87rem}
.card>.note:last-child{margin-top:12px}
.ok{--tone:var(--ok);--tint:var(--ok-soft)}
.bad{--tone:var(--bad);--tint:var(--bad-soft)}
.warn{--tone:var(--warn);--tint:var(--warn-soft)}
.idle{--tone:var(--idle);--tint:var(--idle-soft)}
.icon{width:16px;height:16px;flex:none;color:var(--tone);vertical-align:-.18em}
.pill{display:inline-flex;gap:5px;align-items:center;padding:1px 9px 1px 6px;border-radius:99px;background:var(--tint);color:var(--tone);font-size:.8rem;font-weight:600;
 white-space:nowrap}
.pill .icon{width:13px;height:13px}

.verdict{display:grid;grid-template-columns:auto 1fr;gap:4px 18px;padding:24px;border-color:color-mix(in srgb,var(--tone) 45%,var(--card));background:var(--tint);margin-top:14px}
.verdict>.icon{width:46px;height:46px;grid-row:1/4}
.verdict h1{font-size:1.65rem;line-height:1.2;letter-spacing:-.01em;align-self:center}
.verdict .why{grid-column:2;font-size:1.02rem;max-width:75ch}
.verdict ul{grid-column:2;display:flex;flex-wrap:wrap;gap:4px 10px;color:var(--muted);font-size:.9rem}
.verdict li+li:before{content:"·";margin-right:10px}
.verdict a{font-weight:600;white-space:nowrap}

.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:12px 16px 13px;min-width:0}
.tile dt{color:var(--muted);font-size:.8rem}
.tile .value{font-size:1.22rem;font-weight:600;line-height:1.3;color:var(--tone,inherit)}
.tile .value.long{font-size:.95rem;line-height:1.35}
.tile .more{color:var(--muted);font-size:.8rem}

nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.87rem}
nav a{color:var(--muted);text-decoration:none}
nav a:hover{color:var(--link);text-decoration:underline}

.steps li,.steps .axis{display:grid;grid-template-columns:minmax(0,17.5rem) minmax(0,1fr) 5.2rem;column-gap:14px;align-items:center}
.steps .axis{color:var(--muted);font-size:.75rem;border-bottom:1px solid var(--edge)}
.steps li{border-bottom:1px solid color-mix(in srgb,var(--edge) 50%,transparent)}
.steps li:last-child{border-bottom:0}
.steps .name{padding:4px 0;line-height:1.3;display:grid;grid-template-columns:auto 1fr;column-gap:7px}
.steps .name .icon{margin-top:2px}
.steps .name small{grid-column:2;color:var(--muted);font-size:.78rem}
.steps .name small.why{color:var(--bad)}
.steps .took{text-align:right;font-size:.87rem;white-space:nowrap}
.steps .parent .label{font-weight:600}
.d1 .name{padding-left:12px}.d2 .name{padding-left:28px}.d3 .name{padding-left:44px}.d4 .name{padding-left:60px}.d5 .name{padding-left:76px}
svg{display:block;overflow:visible}
svg text{font-size:11px;fill:var(--muted);font-family:inherit}
.tick{stroke:var(--edge);stroke-width:1}
.bar{fill:var(--tone);stroke:var(--tone);stroke-width:2;stroke-linejoin:round}
.parent .bar{fill-opacity:.22;stroke-opacity:.5;stroke-width:1}
.hatch path{stroke:var(--card);stroke-width:2.5}
.bar.hatched{stroke:var(--tone)}

.split{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,7fr);gap:16px}
.split>.card{margin:0}
.rows li{display:grid;grid-template-columns:minmax(0,15rem) minmax(0,1fr) 5.6rem;column-gap:14px;align-items:center;font-size:.92rem}
.rows.narrow li{grid-template-columns:minmax(0,8.5rem) minmax(0,1fr) 3.6rem}
.rows .figure{text-align:right;white-space:nowrap}
.rows .label{line-height:1.25;padding:3px 0}
.rows .drifted .label,.rows .drifted .figure{font-weight:600}
.groove{fill:var(--soft)}
.value-bar{fill:var(--cpu)}
.effect{fill:var(--reference)}
.drifted .effect{fill:var(--batch)}
.other{stroke:var(--ink);stroke-width:2}
.floor{stroke:var(--ink);stroke-width:1.25;stroke-dasharray:3 3}

.plot text{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.band{fill:var(--soft)}.band.even{fill:none}
.lane rect{fill:var(--soft)}.lane .even rect{fill:color-mix(in srgb,var(--soft) 45%,var(--card))}
.lane .bad rect{fill:var(--bad-soft)}
.lane text{font-size:11px;fill:var(--ink)}
.cpu{--hue:var(--cpu)}.memory{--hue:var(--memory)}
.area{fill:var(--hue);fill-opacity:.16}
.curve{fill:none;stroke:var(--hue);stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.chart h3{display:flex;flex-wrap:wrap;gap:0 10px;margin:14px 0 6px}
.chart h3 span{font-weight:400;color:var(--muted)}

table{border-collapse:collapse;width:100%;font-size:.9rem}
th{text-align:left;color:var(--muted);font-weight:600;font-size:.8rem;padding:0 12px 6px 0;border-bottom:1px solid var(--edge)}
td{padding:8px 12px 8px 0;border-bottom:1px solid color-mix(in srgb,var(--edge) 50%,transparent);vertical-align:top}
tr:last-child td{border-bottom:0}
.right{text-align:right;white-space:nowrap}
.still{white-space:nowrap}

.legend{display:flex;flex-wrap:wrap;gap:4px 18px;color:var(--muted);font-size:.85rem;margin:16px 0 10px}
.legend span{display:inline-flex;gap:7px;align-items:center}
.legend svg{width:22px;height:12px;flex:none}
.multiples{display:grid;grid-template-columns:repeat(auto-fill,minmax(235px,1fr));gap:14px}
.multiples figure{border:1px solid var(--edge);border-radius:10px;padding:12px 14px;min-width:0}
.multiples figcaption{margin-bottom:8px}
.multiples .note{font-size:.78rem;margin-top:5px}
.ends{display:flex;justify-content:space-between;gap:8px;color:var(--muted);font-size:.75rem;margin-top:3px}
.ref{fill:var(--reference);fill-opacity:.55}
.new{fill:none;stroke:var(--batch);stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.new.solid{fill:var(--batch);stroke:none}
.base{stroke:var(--edge);stroke-width:1;vector-effect:non-scaling-stroke}
.levels li{display:grid;grid-template-columns:minmax(0,5.5rem) minmax(0,1fr) 3.4rem;column-gap:8px;align-items:center;font-size:.78rem;line-height:1.2}
.levels .figure{text-align:right;white-space:nowrap}

.excerpt+.excerpt{margin-top:22px}
.excerpt h3{display:flex;gap:8px;align-items:baseline;margin-bottom:8px}
.log{border:1px solid var(--edge);border-radius:10px;overflow:hidden;font-size:.86rem}
.log li{display:grid;grid-template-columns:6.6rem 5.2rem minmax(0,9.5rem) minmax(0,1fr);gap:0 12px;padding:4px 12px;border-left:4px solid transparent}
.log li+li{border-top:1px solid color-mix(in srgb,var(--edge) 50%,transparent)}
.log .hit{background:var(--bad-soft);border-left-color:var(--bad);font-weight:600}
.log .hit.stopped{background:var(--warn-soft);border-left-color:var(--warn)}
.log time,.log .from{color:var(--muted);font-weight:400}
.level{font-size:.8rem;font-weight:600;color:var(--muted)}
.level.error{color:var(--bad)}.level.warning{color:var(--warn)}
.trace{margin-top:10px;background:var(--soft);border-radius:10px;padding:12px 14px;white-space:pre-wrap;max-height:26rem;overflow:auto;line-height:1.45}

.graph{overflow-x:auto;border:1px solid var(--edge);border-radius:10px}
.graph img{display:block;height:auto;min-width:860px;max-width:none;width:100%}
.files{display:grid;grid-template-columns:auto minmax(0,1fr);gap:5px 18px;font-size:.92rem}
.files dt{color:var(--muted)}

@media (max-width:860px){.tiles{grid-template-columns:repeat(2,1fr)}.split{grid-template-columns:minmax(0,1fr)}}
@media (max-width:640px){
main,.top,.foot{padding-left:14px;padding-right:14px}
.card{padding:16px 14px}
.tile{padding:10px 12px}
.verdict{padding:18px 16px;gap:6px 12px}
.verdict>.icon{width:32px;height:32px;grid-row:1}
.verdict h1{font-size:1.3rem}
.verdict .why,.verdict ul{grid-column:1/3}
.steps li{grid-template-columns:minmax(0,1fr) auto;padding-bottom:3px}
.steps .track{grid-column:1/3;grid-row:2}
.steps .axis{grid-template-columns:minmax(0,1fr)}
.steps .axis span{display:none}
.d2 .name{padding-left:20px}.d3 .name{padding-left:28px}.d4 .name{padding-left:36px}.d5 .name{padding-left:44px}
.rows li,.rows.narrow li{grid-template-columns:minmax(0,1fr) auto;padding-bottom:4px}
.rows .track{grid-column:1/3;grid-row:2}
.log li{grid-template-columns:auto auto 1fr;gap:0 10px}
.log .said{grid-column:1/4}
thead{display:none}
tr{display:grid;gap:3px 10px;padding:9px 0;border-bottom:1px solid var(--edge)}
tr:last-child{border-bottom:0}
td{display:grid;grid-template-columns:6.5rem minmax(0,1fr);padding:0;border:0;text-align:left!important}
td:before{content:attr(data-label);color:var(--muted);font-size:.8rem}
}
@media print{
body{background:#fff;font-size:10.5pt}
main,.top,.foot{max-width:none;padding-left:0;padding-right:0}
nav,.skip{display:none}
.card,.tile,.multiples figure,.steps li,.log li,tr{break-inside:avoid}
.card{break-inside:auto}
.trace{max-height:none}
.graph img{min-width:0}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""


def _variables(colours: Mapping[str, str]) -> str:
    return ":root{" + ";".join(f"--{name}:{colour}" for name, colour in colours.items()) + "}"


# Paper is light whatever the reader's screen is.
SHEET: Final = f"{_variables(LIGHT)}\n@media screen and (prefers-color-scheme:dark){{{_variables(DARK)}}}{_RULES}"
"""The whole style sheet."""

POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SHEET.encode()).digest()).decode()
    + "'"
)
"""What the page may load: nothing but pictures it holds itself and `SHEET`."""
