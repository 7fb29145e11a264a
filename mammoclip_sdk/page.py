"""What the HTML pages share: one file that stands alone, for a screen, a printer, a mailbox.

No scripts and nothing fetched (the page's own policy forbids both); pictures are data URIs. Every
text has to be escaped by whoever puts it in, for names of files and findings come from elsewhere;
`fact_table` and `use_note` escape their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

DOCTYPE = "<!DOCTYPE html>"
NOT_FOR_CLINICAL_USE = '@page { @bottom-center { content: "Not for clinical use" } }\n'
"""Style of a page whose every printed sheet says so, as each says the page's title."""


def page(title: str, body: str, *, style: str = "") -> str:
    """Return a whole page as HTML5 text that UTF-8 can hold; other bytes show as escapes.

    Parameters
    ----------
    title
        Plain text; it names what the page is about, for every printed sheet bears it.
    body
        HTML, escaped already.
    style
        Style sheet of this page alone, behind what all pages have.
    """
    style = _STYLE + f"@page {{ @top-center {{ content: {_css(title)} }} }}\n" + style
    text = _PAGE.format(doctype=DOCTYPE, title=escape(title), style=style, body=body)
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _css(text: str) -> str:
    """Return a text as a string of a style sheet; nothing in it can end the string or the sheet."""
    escaped = re.sub(r"[^A-Za-z0-9 .,:+-]", lambda found: f"\\{ord(found[0]):x} ", text)
    return f'"{escaped}"'


def use_note(intended_use: str, *, not_for_clinical_use: bool) -> str:
    """Return what a model may be used for, as the paragraph that comes first on every page."""
    warning = "<strong>Not for clinical use.</strong> " if not_for_clinical_use else ""
    return f'<p class="use" role="note">{warning}{escape(intended_use)}</p>'


def fact_table(facts: Mapping[str, str]) -> str:
    """Return names and what is said of them as a table of two columns; plain text, both."""
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def method_name(method: str) -> str:
    """Return what the method of an interval is called in prose."""
    return {"delong": "DeLong", "wilson": "Wilson"}.get(method, method)


_PAGE = """{doctype}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>{body}</main></body>
</html>
"""

_STYLE = """
:root { --ink: #1c1c1e; --soft: #63636b; --line: #d9d9de; --ground: #fbfbfa; --mark: #9a5b00;
  --note: #fff4dc; --shade: #8e8e96 }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e8; --soft: #9c9ca4; --line: #3a3a3f; --ground: #141416; --mark: #f0b45b;
    --note: #33270f; --shade: #77777f } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif }
main { max-width: 56rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
p { margin: .35rem 0 }
.use, .caution { padding: .7rem 1rem; background: var(--note); border-left: 4px solid var(--mark) }
.caution { margin: .6rem 0; font-weight: 500 }
h1 { margin: 1.8rem 0 0; font-size: 1.15rem; font-weight: 600 }
h1::first-letter { text-transform: uppercase }
h2 { margin: 2.4rem 0 .4rem; font-size: 1rem; font-weight: 600 }
ul { margin: .4rem 0; padding-left: 1.1rem }
.caption { color: var(--soft); font-size: .85rem }
table { width: 100%; border-collapse: collapse; font-size: .87rem }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); overflow-wrap: break-word }
td { min-width: 6em }
th { font-weight: 500; color: var(--soft) }
tbody th { white-space: nowrap }
code { font-size: .82rem }
@page { @top-center { font-size: 8pt } @bottom-center { font-size: 8pt } }
@media screen and (max-width: 40rem) {
  .facts, .facts tbody, .facts tr, .facts th, .facts td { display: block }
  .facts td { border: 0; padding-top: 0; overflow-wrap: anywhere }
  table:not(.facts) { display: block; overflow-x: auto; padding-bottom: .4rem;
    background: linear-gradient(to right, var(--ground) 40%, transparent) left / 3rem 100%,
      linear-gradient(to left, var(--ground) 40%, transparent) right / 3rem 100%,
      linear-gradient(to right, var(--shade), transparent) left / 1rem 100%,
      linear-gradient(to left, var(--shade), transparent) right / 1rem 100%, var(--ground);
    background-repeat: no-repeat; background-attachment: local, local, scroll, scroll } }
@media print {
  body { background: none; font-size: 10pt }
  main { max-width: none; padding: 0 }
  .use, .caution { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  .caution { break-inside: avoid }
  h2 { break-after: avoid } tr { break-inside: avoid } }
"""
