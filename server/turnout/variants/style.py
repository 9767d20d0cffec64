"""The style of the page of a verification, for light and dark."""

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5b6672; --edge: #dfe3e8;
  --reference: #7a8796; --candidate: #1f6feb; --good: #1a7f37; --bad: #c62828; --mark: #b45309 }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1318; --card: #181d24; --ink: #e8ebef; --soft: #9aa5b1;
  --edge: #2c343d; --reference: #8d99a6; --candidate: #5aa2ff; --good: #4cc26a; --bad: #ff7b72; --mark: #e3a04f } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif }
main { max-width: 74rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
header { margin-bottom: 1.5rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .1rem 0 .7rem; overflow-wrap: anywhere }
h1 span { color: var(--soft); font-weight: 400 }
h2 { font-size: 1.15rem; margin: 0 0 .8rem } h3 { font-size: .95rem; margin: 0 0 .4rem; font-weight: 600 }
p { margin: .2rem 0 } .note { color: var(--soft) }
.over { color: var(--soft); font-size: .85rem; letter-spacing: .04em }
.verdict { display: inline-block; padding: .1rem .65rem; border-radius: 1rem; border: 1.5px solid; margin-right: .4rem }
.good { color: var(--good) } .bad, .reasons { color: var(--bad) } .reasons { margin: .6rem 0 0; padding-left: 1.2rem }
section { background: var(--card); border: 1px solid var(--edge); border-radius: .7rem; padding: 1.1rem 1.25rem;
  margin-bottom: 1rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; padding: 0; border: 0;
  background: none }
.tiles div { background: var(--card); border: 1px solid var(--edge); border-radius: .7rem; padding: .9rem 1.1rem;
  display: flex; flex-direction: column }
.tiles b { font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums } .tiles span { font-weight: 600 }
small, figcaption { color: var(--soft); font-size: .85rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem;
  align-items: start }
figure { margin: 0; max-width: 38rem } svg { width: 100%; height: auto; display: block }
.wide { overflow-x: auto; margin-top: .6rem } table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; padding: .3rem 1.6rem .3rem 0; white-space: nowrap; border-bottom: 1px solid var(--edge) }
th { color: var(--soft); font-weight: 600 } tr:last-child td { border-bottom: 0 }
.number { text-align: right; font-variant-numeric: tabular-nums; }
details { margin-top: .8rem } summary { cursor: pointer; font-weight: 600; margin-bottom: .4rem }
.key { display: inline-flex; align-items: center; gap: .4rem; margin-right: 1.2rem; font-size: .9rem }
.key i { width: .8rem; height: .8rem; border-radius: 50% }
svg text { fill: var(--soft); font-size: 14px } svg .axis { font-size: 13px } svg .middle { text-anchor: middle }
svg .end { text-anchor: end } svg .rule { stroke: var(--edge); stroke-width: 1 }
svg .candidate { fill: var(--candidate) } svg .reference { fill: var(--reference) }
i.candidate { background: var(--candidate) } i.reference { background: var(--reference) }
svg .mark { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 4 3 } svg .mark-name { fill: var(--mark) }
svg .loss { stroke: var(--candidate); stroke-width: 2; opacity: .35 }
svg .trail { fill: none; stroke-width: 1.5; opacity: .6 } svg .whisker { stroke-width: 1.5 }
svg .candidate-line { stroke: var(--candidate) } svg .reference-line { stroke: var(--reference) }
@media print { section, .tiles div { break-inside: avoid } }
"""
