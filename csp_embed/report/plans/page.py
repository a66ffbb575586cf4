"""A plan as one self-contained HTML page: summary, time, graph and layers, with hover and search.

No library: the pictures are the SVG of `gantt.py` and `graph_picture.py`, whose items carry layer
names as keys; a short script marks what belongs together. The page opens without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.report.page import hanging, number, page, table
from csp_embed.report.plans.gantt import plan_scene, timed
from csp_embed.report.plans.graph_picture import graph_scene
from csp_embed.report.plans.table import Row, plan_rows, summary_text
from csp_embed.report.scene import Scene, to_svg, xml

STYLE = """
.bar{position:sticky;top:0;background:#fff;padding:.5em 0;z-index:2;border-bottom:1px solid #ccc}
.bar input{font:inherit;padding:.2em .5em;width:min(22em,60%)} #count{color:#595959;margin-left:1em}
#info{min-height:2.9em;font-size:13px;overflow-wrap:anywhere}
.pan{overflow:auto;border:1px solid #ccc;max-height:85vh} .pan svg{display:block}
.zoom button{font:inherit;min-width:2.4em}
[data-key]{cursor:pointer} .dim .pan [data-key]:not(.on){opacity:.1} .dim .pan .on{opacity:1}
.find tr[data-key]:not(.on){display:none}
th{position:static}
"""

# hover: the layer, what it reads and what reads it; search: layers whose row has the words.
SCRIPT = """
const all=[...document.querySelectorAll('[data-key]')],body=document.body,
 info=document.getElementById('info'),find=document.getElementById('find'),
 count=document.getElementById('count'),rows=[...document.querySelectorAll('tr[data-key]')],
 near=new Map(rows.map(r=>[r.dataset.key,{from:new Set(),to:new Set()}])),hint=info.textContent;
document.querySelectorAll('g[data-to]').forEach(e=>{const a=e.dataset.key,b=e.dataset.to;
 if(near.has(a)&&near.has(b)){near.get(a).to.add(b);near.get(b).from.add(a)}});
let found=null;
const mark=(keys,ends)=>{body.classList.toggle('dim',!!keys);
 all.forEach(e=>{const k=e.dataset.key,t=e.dataset.to;e.classList.toggle('on',!!keys&&
  (t===undefined?keys.has(k):ends?ends===k||ends===t:keys.has(k)&&keys.has(t)))})};
const search=()=>{const q=find.value.toLowerCase().trim();
 const hit=r=>r.textContent.toLowerCase().includes(q);
 found=q?new Set(rows.filter(hit).map(r=>r.dataset.key)):null;
 mark(found);body.classList.toggle('find',!!found);
 count.textContent=`${found?found.size:near.size} of ${near.size} layers`};
find.oninput=search;
find.onkeydown=e=>{if(e.key!=='Enter'||!found)return;
 const box=document.querySelector('#graph rect.on');
 if(box)box.scrollIntoView({block:'center',inline:'center'})};
const list=s=>[...s].slice(0,12).join(', ')+(s.size>12?` and ${s.size-12} more`:'');
document.addEventListener('mouseover',e=>{const at=e.target.closest('svg [data-key]');
 if(!at){mark(found);return}
 const k=at.dataset.key,n=near.get(k);if(!n)return;
 const of=at.querySelector('title')?at:[...at.closest('svg').querySelectorAll('[data-key]')]
  .find(o=>o.dataset.key===k&&o.dataset.to===undefined&&o.querySelector('title'));
 info.textContent=of.querySelector('title').textContent+
  (n.from.size?'; reads '+list(n.from):'')+(n.to.size?'; read by '+list(n.to):'');
 if(at.dataset.to!==undefined)mark(new Set([k,at.dataset.to]));
 else mark(new Set([k,...n.from,...n.to]),k)});
document.addEventListener('click',e=>{const at=e.target.closest('[data-key]');
 if(at){find.value=at.dataset.key;search()}});
document.querySelectorAll('.zoom').forEach(z=>{const pan=z.nextElementSibling,
 svg=pan.querySelector('svg'),own=svg.viewBox.baseVal.width,ratio=svg.viewBox.baseVal.height/own;
 const size=w=>{svg.setAttribute('width',w);svg.setAttribute('height',w*ratio)};
 z.onclick=e=>{const by=e.target.dataset.by;if(!by)return;
  size(by==='fit'?pan.clientWidth-2:by==='1'?own:svg.clientWidth*by)};
 if(own<pan.clientWidth*1.3)size(Math.min(own,pan.clientWidth-2))});
search();
"""

_ZOOM = (
    '<p class="zoom"><button data-by="1.4">+</button> <button data-by="0.7">−</button> '
    '<button data-by="fit">fit</button> <button data-by="1">1:1</button></p>'
)
HEAD = (
    "layer",
    "kind",
    "replica",
    "device",
    "ms",
    "start",
    "finish",
    "bytes in",
    "cost from",
    "why",
)


def plan_page(plan: Plan, graph: TaskGraph, platform: Platform) -> str:
    """The page. Raises: InputError where there is no plan."""
    rows = plan_rows(plan, graph, platform)
    over_time = plan_scene(plan, platform, graph)
    name = f"Plan for {graph.name}" if graph.name else "Plan"
    notes = "".join(f'<p class="note">note: {escape(text)}</p>' for text in plan.reasons)
    return page(
        xml_safe(f"{name}: {len(graph.tasks)} layers on {len(platform.devices)} devices"),
        hanging(summary_text(plan, platform), 4) + notes + '<div class="bar"><label>search '
        '<input id="find" type="search" placeholder="name, kind, device"></label>'
        '<span id="count"></span><div id="info">Point at a layer to see what it reads and who '
        "reads it; click keeps it.</div></div>"
        + _picture("Over time" if timed(plan) else "Loads", over_time, "time")
        + _picture("Graph", graph_scene(graph, plan, platform), "graph")
        + "<h2>Layers</h2>"
        + _layers(rows),
        STYLE,
        SCRIPT,
    )


def xml_safe(text: str) -> str:
    """Without characters that no page may hold; still to be escaped."""
    # Escaping would change it: then characters that XML cannot hold are in it.
    return text if xml(text) == escape(text) else text.encode("ascii", "replace").decode()


def _picture(head: str, scene: Scene, name: str) -> str:
    return f'<h2>{head}</h2>{_ZOOM}<div class="pan" id="{name}">{to_svg(scene)}</div>'


def _layers(rows: Sequence[Row]) -> str:
    # A column of replicas only where there are several.
    used = [h != "replica" or any(r.replica for r in rows) for h in HEAD]
    cells = [
        [
            _words(r.task), _words(r.op), _words(r.replica), _words(r.device),
            number(r.cost, ".4g"), number(r.start, ".4g"), number(r.finish, ".4g"),
            number(r.bytes_in), _words(r.origin), _words(r.reason),
        ]
        for r in rows
    ]  # fmt: skip
    kept = [[c for c, u in zip(row, used, strict=True) if u] for row in cells]
    head = [h for h, u in zip(HEAD, used, strict=True) if u]
    # Keys are layer names: the script finds their rows and boxes by them.
    return table(head, kept, sort=True, keys=[r.task for r in rows])


def _words(text: str) -> str:
    return f'<td class="l t">{xml(text)}</td>'
