"""Names of adapters while a `<lora:` tag is being written into the prompt."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lorablend.app.library.shelf import Shelf

__all__ = ["make_completion"]

_MOST = 8  # names: a list that need not be scrolled

_LIST = """<div hidden><ul id="completion-list" role="listbox" aria-label="Adapters"></ul><p role="status"></p></div>"""

# The list belongs to the text box, which keeps the focus: what the keys do is told by its aria-activedescendant.
_KEYS = """
if (!window.lorablendCompletion) {
  window.lorablendCompletion = true;
  const place = element.closest("#completion"), pop = element.querySelector("div");
  const list = pop.querySelector("ul"), status = pop.querySelector("p");
  let area = null, asked = 0, active = 0;

  const close = () => {
    asked++;
    pop.hidden = true;
    area?.removeAttribute("aria-activedescendant");
  };
  const begun = () => area.selectionStart !== area.selectionEnd ? null
    : /<lora:([^<>:\\n]*)$/i.exec(area.value.slice(0, area.selectionStart));
  const point = index => {
    active = (index + list.children.length) % list.children.length;
    [...list.children].forEach((one, place) => one.setAttribute("aria-selected", place === active));
    area.setAttribute("aria-activedescendant", list.children[active].id);
  };
  const show = (names, more) => {
    list.replaceChildren(...names.map((name, index) => {
      const one = document.createElement("li");
      one.id = "completion-" + index;
      one.setAttribute("role", "option");
      one.textContent = name;
      return one;
    }));
    status.textContent = more ? `${names.length} of ${names.length + more} adapters; write on to find the others`
      : names.length === 1 ? "1 adapter" : `${names.length} adapters`;
    const block = document.querySelector("#prompt");
    place.style.top = block.offsetTop + block.offsetHeight + "px";
    pop.hidden = false;
    for (const [name, value] of [["autocomplete", "list"], ["haspopup", "listbox"], ["controls", list.id]])
      area.setAttribute("aria-" + name, value);
    point(0);
  };
  const look = async () => {
    const tag = begun();
    if (!tag) return close();
    const number = ++asked;
    let found = null;
    try { found = await server.adapter_names(tag[1]); } catch { /* the server is away: no list */ }
    if (number !== asked || document.activeElement !== area) return;
    found?.names?.length ? show(found.names, found.more) : close();
  };
  const choose = name => {
    const tag = begun();
    if (!tag) return close();
    // Inside a tag that is closed already only the name is replaced.
    const rest = /^[^<>:\\n]*((?::[^<>\\n]*)?>)/.exec(area.value.slice(area.selectionEnd));
    const kept = rest && rest[1] !== ">" ? rest[1] : "";
    const start = tag.index, end = area.selectionEnd + (rest ? rest[0].length : 0);
    area.setSelectionRange(start, end);
    document.execCommand("insertText", false, `<lora:${name}${kept || ":1>"}`);  // unlike a new value, it can be undone
    close();
  };

  document.addEventListener("input", event => {
    if (!event.target.matches("#prompt textarea")) return;
    area = event.target;
    if (!event.isComposing) look();
  });
  document.addEventListener("keydown", event => {
    if (pop.hidden || event.target !== area || event.isComposing) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowDown") point(active + 1);
    else if (event.key === "ArrowUp") point(active - 1);
    else if (event.key === "Enter" || event.key === "Tab") choose(list.children[active].textContent);
    else if (event.key === "Escape") close();
    else {
      if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) close();
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  document.addEventListener("focusout", event => { if (event.target === area) close(); });
  pop.addEventListener("mousedown", event => event.preventDefault());  // the text box keeps the focus
  list.addEventListener("click", event => {
    const one = event.target.closest("li");
    if (one) choose(one.textContent);
  });
}
"""


def make_completion(shelf: Shelf) -> None:
    """Lay it out, in the column of the prompt, whose elem_id is "prompt"."""

    def adapter_names(text: str) -> dict[str, Any]:
        """Those that have the text in them, first those that begin with it; `more` are left out."""
        part = str(text).casefold()
        names = [name for name in shelf.names() if part in name.casefold()]
        names.sort(key=lambda name: not name.casefold().startswith(part))
        return {"names": names[:_MOST], "more": max(len(names) - _MOST, 0)}

    gr.HTML(_LIST, elem_id="completion", js_on_load=_KEYS, server_functions=[adapter_names])
